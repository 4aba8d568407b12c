// Edges of one centre for repinit's series (theory S6), in a warp's shared memory. They are put in order by types, nearest first within a
// type. Those of one interval are then neighbours, a run, and the sums of a run meet the coefficients once.
#pragma once

#include "cuda/env_mat.cuh"
#include "cuda/repinit_series.hpp"
#include "cuda/series.cuh"

namespace dpa2 {

constexpr int TILE = cuda::repinit_series_tile(sizeof(real)), EACH = TILE / 32;  // edges of a tile, and of a lane
constexpr real NOWHERE = 2;                                                      // on the scale of an interval

/// A tile of edges of one centre in shared memory, in order.
struct Tile {
  real *R, *x, *weight;                              // (TILE, 4), (TILE) on the scale of the interval, (TILE) what goes with the gate
  int *interval, *combination, *run, *edge, *first;  // (TILE) each, and the first edge of every run and of the one behind the last
  int count = 0, runs = 0;

  __device__ __forceinline__ Tile(real* numbers, int* integers)
      : R(numbers),
        x(numbers + 4 * TILE),
        weight(numbers + 5 * TILE),
        interval(integers),
        combination(integers + TILE),
        run(integers + 2 * TILE),
        edge(integers + 3 * TILE),
        first(integers + 4 * TILE) {}

  /// The edges `begin`... of a centre. False where one is outside of the range: it counts as zero, NOWHERE on its interval.
  template <class Args>
  __device__ __forceinline__ bool load(const Args& args, int begin, int end, int centre_type) {
    const auto& a = args.block;
    const cuda::SeriesArgs<real>& series = args.series;
    const int lane = threadIdx.x % 32;
    count = min(TILE, end - begin);
    real rows[EACH][4], sw[EACH];
    int types[EACH], where[EACH], at[EACH];
    bool inside = true;
#pragma unroll
    for (int q = 0; q < EACH; ++q) {
      const int e = lane + 32 * q;
      types[q] = where[q] = 0;
      at[q] = e < count ? -1 : 0;  // no place yet
      if (e >= count) continue;
      environment(a.statistics, Edge(a.d, a.r, begin + e), centre_type, rows[q], sw[q]);
      if (gated || series.typed != 0) {
        const int type = a.types[a.j[begin + e]];
        types[q] = a.one_side != 0 ? type : type * a.ntypes + centre_type;
      }
      where[q] = interval_of(series, rows[q][0], series.typed != 0 ? types[q] : 0, inside);
    }
    // Types one after the other, in the order in which they appear.
    const unsigned before = (1u << lane) - 1;
    int placed = 0;
#pragma unroll
    for (int lead = 0; lead < EACH; ++lead)
      for (;;) {
        const unsigned waiting = __ballot_sync(FULL_MASK, at[lead] < 0);
        if (waiting == 0) break;
        const int chosen = __shfl_sync(FULL_MASK, types[lead], __ffs(static_cast<int>(waiting)) - 1);
#pragma unroll
        for (int q = lead; q < EACH; ++q) {
          const bool mine = at[q] < 0 && types[q] == chosen;
          const unsigned members = __ballot_sync(FULL_MASK, mine);
          if (mine) at[q] = placed + __popc(members & before);
          placed += __popc(members);
        }
      }
    __syncwarp(FULL_MASK);  // the tile before has been used
#pragma unroll
    for (int q = 0; q < EACH; ++q) {
      if (lane + 32 * q >= count) continue;
      real slope;
      write_quad(R + 4 * at[q], {{rows[q][0], rows[q][1], rows[q][2], rows[q][3]}});
      x[at[q]] = argument(series, where[q], rows[q][0], slope);
      if (gated) weight[at[q]] = series.gate_switch != 0 ? sw[q] : real(1);
      interval[at[q]] = where[q];
      combination[at[q]] = types[q];
      edge[at[q]] = lane + 32 * q;
    }
    const bool all = __all_sync(FULL_MASK, inside);
    if (!all) {
      __syncwarp(FULL_MASK);
#pragma unroll 1
      for (int p = lane; p < count; p += 32)
        if (!in_range(series, R[4 * p])) {
          write_quad(R + 4 * p, {});
          x[p] = NOWHERE;
        }
    }
    __syncwarp(FULL_MASK);
    runs = 0;
#pragma unroll
    for (int q = 0; q < EACH; ++q) {
      const int p = lane + 32 * q;
      bool begins = false;
      if (p < count) begins = p == 0 || interval[p] != interval[p - 1] || (gated && combination[p] != combination[p - 1]);
      const unsigned beginnings = __ballot_sync(FULL_MASK, begins);
      const int own = runs + __popc(beginnings & before) + (begins ? 1 : 0) - 1;
      if (p < count) run[p] = own;
      if (begins) first[own] = p;
      runs += __popc(beginnings);
    }
    if (lane == 0) first[runs] = count;
    __syncwarp(FULL_MASK);
    return all;
  }

  /// Of these edges those that are outside of the range remain, with their scalars in `x`. Ends with lanes apart.
  template <class Args>
  __device__ __forceinline__ void keep_outside(const Args& args, int begin, int centre_type) {
    const int lane = threadIdx.x % 32, all = count;
    count = 0;
    __syncwarp(FULL_MASK);  // the tile has been used
    for (int p = lane; p - lane < all; p += 32) {
      const int e = p < all && x[p] == NOWHERE ? edge[p] : -1, types = p < all ? combination[p] : 0;
      const real goes_with_gate = gated && p < all ? weight[p] : real(0);
      const unsigned members = __ballot_sync(FULL_MASK, e >= 0);
      __syncwarp(FULL_MASK);  // nothing is written but to places that have been read
      if (e >= 0) {
        const int at = count + __popc(members & ((1u << lane) - 1));
        real row[4], sw;
        environment(args.block.statistics, Edge(args.block.d, args.block.r, begin + e), centre_type, row, sw);
        write_quad(R + 4 * at, {{row[0], row[1], row[2], row[3]}});
        x[at] = row[0];
        if (gated) weight[at] = goes_with_gate;
        combination[at] = types;
        edge[at] = e;
      }
      count += __popc(members);
    }
  }
};

}  // namespace dpa2
