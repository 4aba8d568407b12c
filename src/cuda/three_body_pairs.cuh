// Pairs of neighbours of one centre for the three-body block's series (theory S5, S6), in a warp's shared memory.
//
// Pairs are numbered by their distance o in the circle of neighbours: pair p is (j, j + o), j = p % m, o = p / m, up to o = m / 2, where
// half of the circle is enough if m is even. A group is an interval, with a gate and a pair of kinds of neighbours. Pairs outside of the
// range of the series, and with a gate of neighbours of more kinds than there is room for, are in no group and go through the network.
#pragma once

#include "cuda/env_mat.cuh"
#include "cuda/series.cuh"
#include "cuda/three_body_series.hpp"

namespace dpa2 {

constexpr int SLOTS = cuda::three_body_slots, KINDS_OF_ATOMS = cuda::three_body_kinds;

__device__ __forceinline__ float fused(float a, float b, float c) { return fmaf(a, b, c); }
__device__ __forceinline__ double fused(double a, double b, double c) { return fma(a, b, c); }

/// The pair of a lane, which moves on by the lanes of a warp.
struct Pair {
  int j, o, m, step_j, step_o;

  __device__ __forceinline__ Pair(int first, int neighbours)
      : j(first % neighbours), o(first / neighbours), m(neighbours), step_j(32 % neighbours), step_o(32 / neighbours) {}
  __device__ __forceinline__ int k() const { return j + o < m ? j + o : j + o - m; }
  __device__ __forceinline__ void next() {
    j += step_j;
    o += step_o;
    if (j >= m) {
      j -= m;
      ++o;
    }
  }
};

/// The neighbours of a centre, and the groups of their pairs.
struct Environment {
  real* v;                                                 // (room, 4) vector and switch
  real* channels;                                          // (nc)
  int *type, *kind, *types, *set, *before, *keys, *slots;  // (room) two, types of kinds, (words) two, (SLOTS), (32)
  int type_of_centre = 0, n = 0, m = 0, at = 0;            // edges; with the padded slots; the first edge in the master list
  int pairs = 0, kinds = 0, groups = 0;
  bool all_in_groups = true;
  real multiplicity = 0;

  __device__ __forceinline__ Environment(real* numbers, int* integers, int room, int words)
      : v(numbers),
        channels(numbers + 4 * room),
        type(integers),
        kind(integers + room),
        types(integers + 2 * room),
        set(types + KINDS_OF_ATOMS),
        before(set + words),
        keys(before + words),
        slots(keys + SLOTS) {}

  template <class Args>
  __device__ __forceinline__ void load(const Args& args, int i) {
    const auto& a = args.block;
    const int lane = threadIdx.x % 32;
    type_of_centre = a.types[i];
    n = a.start[i + 1] - a.start[i];
    at = a.master_start[i];
    multiplicity = a.pad_v != nullptr ? real(a.pad[i]) : real(0);
    m = n + (multiplicity != real(0) ? 1 : 0);
    pairs = m * (m + 1) / 2;
    kinds = groups = 0;
    __syncwarp(FULL_MASK);  // the centre before has been used
    for (int k = lane; k < m; k += 32) {
      real R[4], sw = 0;
      if (k < n) {
        environment(a.statistics, Edge(a.d, a.r, at + k), type_of_centre, R, sw);
        type[k] = a.types[a.j[at + k]];
      } else {
        for (int x = 0; x < 3; ++x) R[1 + x] = a.pad_v[3 * type_of_centre + x];
        type[k] = a.pad_types[i / a.per_frame];
      }
      write_quad(v + 4 * k, {{R[1], R[2], R[3], sw}});
      kind[k] = gated ? -1 : 0;
    }
    for (int w = lane; w < args.words; w += 32) set[w] = 0;
    __syncwarp(FULL_MASK);
    if (gated) find_kinds(cuda::three_body_kinds_of(args.series.intervals, args.words));
    find_groups(args);
  }

  __device__ __forceinline__ real times(int k) const { return k < n ? real(1) : multiplicity; }
  /// Orders of a pair, and how often each counts.
  __device__ __forceinline__ real weight(int j, int k) const { return (j == k ? real(1) : real(2)) * times(j) * times(k); }
  /// The same number whenever it is asked for: a pair must find its group again.
  __device__ __forceinline__ static real product(const Quad& a, const Quad& b) {
    return fused(a.at[0], b.at[0], fused(a.at[1], b.at[1], a.at[2] * b.at[2]));
  }
  /// Of a pair, and not `inside` where it is in no group.
  template <class Args>
  __device__ __forceinline__ int interval(const Args& a, real e, int j, int k, bool& inside) const {
    inside = !gated || max(kind[j], kind[k]) < KINDS_OF_ATOMS;
    return interval_of(a.series, e, a.series.typed != 0 ? combination(a, j, k) : 0, inside);
  }
  template <class Args>
  __device__ __forceinline__ int combination(const Args& a, int j, int k) const {
    return type[j] * a.block.ntypes + type[k];
  }
  /// Of a group; of one that is there in any case where the pair is not `inside`.
  __device__ __forceinline__ int key(int found, int j, int k, bool inside) const {
    if (!gated) return found;
    if (!inside) return 0;
    const int a = min(kind[j], kind[k]), b = max(kind[j], kind[k]);
    return (found * kinds + a) * kinds + b;
  }
  /// Which of the groups.
  __device__ __forceinline__ int slot(int key) const {
    return before[key / 32] + __popc(static_cast<unsigned>(set[key / 32]) & ((1u << key % 32) - 1));
  }
  __device__ __forceinline__ int interval_of_slot(int s) const { return gated ? keys[s] / (kinds * kinds) : keys[s]; }
  template <class Args>
  __device__ __forceinline__ const real* gate_of_slot(const Args& a, int s) const {
    const int pair = keys[s] % (kinds * kinds);
    return row_of(a.series.gate, types[pair / kinds] * a.block.ntypes + types[pair % kinds], a.series.nc);
  }

  /// keys (SLOTS) = those of the groups `begin`....
  template <class Args>
  __device__ __forceinline__ void list_groups(const Args& a, int begin) const {
    __syncwarp(FULL_MASK);  // the groups before have been used
    for (int w = threadIdx.x % 32; w < a.words; w += 32) {
      int s = before[w] - begin;
      for (unsigned bits = static_cast<unsigned>(set[w]); bits != 0; bits &= bits - 1) {
        if (s >= 0 && s < SLOTS) keys[s] = 32 * w + __ffs(static_cast<int>(bits)) - 1;
        ++s;
      }
    }
    __syncwarp(FULL_MASK);
  }

 private:
  /// Numbers the types of the neighbours, up to so many. KINDS_OF_ATOMS: none of them.
  __device__ __forceinline__ void find_kinds(int most) {
    const int lane = threadIdx.x % 32;
    for (int first = 0; first < m; first += 32)
      for (;;) {
        const bool waits = first + lane < m && kind[first + lane] < 0;
        const unsigned waiting = __ballot_sync(FULL_MASK, waits);
        if (waiting == 0) break;
        const bool full = kinds == most;
        const int chosen = type[first + __ffs(static_cast<int>(waiting)) - 1];
        for (int k = first + lane; k < m; k += 32)
          if (type[k] == chosen) kind[k] = full ? KINDS_OF_ATOMS : kinds;
        if (!full) {
          if (lane == 0) types[kinds] = chosen;
          ++kinds;
        }
        __syncwarp(FULL_MASK);
      }
  }

  /// The set of groups that there are, and how many are before each word of it.
  template <class Args>
  __device__ __forceinline__ void find_groups(const Args& a) {
    const int lane = threadIdx.x % 32;
    bool all = true;
    if (m > 0) {
      Pair pair(lane, m);
      for (int p = lane; p < pairs; p += 32) {
        const int j = pair.j, k = pair.k();
        bool inside;
        const int where = interval(a, product(read_quad(v + 4 * j), read_quad(v + 4 * k)), j, k, inside), found = key(where, j, k, inside);
        atomicOr(&set[found / 32], static_cast<int>(1u << found % 32));
        all = all && inside;
        pair.next();
      }
    }
    __syncwarp(FULL_MASK);
    for (int first = 0; first < a.words; first += 32) {
      const int w = first + lane, own = w < a.words ? __popc(static_cast<unsigned>(set[w])) : 0;
      int sum = own;
      for (int step = 1; step < 32; step *= 2) {
        const int lower = __shfl_up_sync(FULL_MASK, sum, step);
        if (lane >= step) sum += lower;
      }
      if (w < a.words) before[w] = groups + sum - own;
      groups += __shfl_sync(FULL_MASK, sum, 31);
    }
    __syncwarp(FULL_MASK);
    all_in_groups = __all_sync(FULL_MASK, all);
  }
};

/// Pairs that are in no group, up to 32 of them in shared memory, and where the network works for some of them at a time.
struct Others {
  real *e, *weight, *ss, *work;  // (32) each: v_j . v_k, how often the pair counts, what goes with the gate
  int *row, *place;              // (32) of the tables of types, the pair
  int each, scalars, orders, count = 0;

  template <class Args>
  __device__ __forceinline__ Others(const Args& a, const Environment& env, bool backward, real* numbers)
      : e(numbers),
        weight(numbers + 32),
        ss(numbers + 64),
        work(numbers + 96),
        row(env.slots),
        place(env.keys),
        each(cuda::embedding_each(a.block.net.even, a.block.net.odd, backward)),
        scalars(cuda::embedding_scalars(cuda::three_body_series_work(each, backward, gated, sizeof(real)) - 96, each)),
        orders(a.block.net.typed != 0 ? 2 : 1) {}

  /// Those among the 32 pairs `first`... before `end`. Ends with lanes apart.
  template <class Args>
  __device__ __forceinline__ void load(const Args& a, const Environment& env, int first, int end) {
    const int lane = threadIdx.x % 32, p = first + lane, j = p % env.m, o = p / env.m, k = j + o < env.m ? j + o : j + o - env.m;
    bool inside = true;
    Quad product = {};
    real own = 0;
    if (p < end) {
      const Quad vj = read_quad(env.v + 4 * j), vk = read_quad(env.v + 4 * k);
      own = Environment::product(vj, vk);
      product.at[3] = vj.at[3] * vk.at[3];
      env.interval(a, own, j, k, inside);
    }
    const unsigned members = __ballot_sync(FULL_MASK, !inside);
    __syncwarp(FULL_MASK);  // those before have been used
    count = __popc(members);
    if (!inside) {
      const int at = __popc(members & ((1u << lane) - 1));
      e[at] = own;
      weight[at] = env.weight(j, k) / real(orders);
      ss[at] = a.series.gate_switch != 0 ? product.at[3] : real(1);
      row[at] = env.combination(a, j, k);
      place[at] = p;
    }
  }

  /// The pairs in the other order. Ends with lanes apart.
  __device__ __forceinline__ void turn(int ntypes) const {
    __syncwarp(FULL_MASK);
    const int lane = threadIdx.x % 32;
    if (lane < count) row[lane] = row[lane] % ntypes * ntypes + row[lane] / ntypes;
  }
};

}  // namespace dpa2
