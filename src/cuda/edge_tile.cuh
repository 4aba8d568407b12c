// Products of a tile of at most 32 edges with a matrix, by warps: each lane has up to 8 edges and 4 columns of the result in registers.
//
// The rows of edges lie in shared memory, 4 of them 16 bytes apart in their banks: the 8 lanes that have one edge read the same four
// numbers, one wavefront for all. A row of the matrix is read by 8 lanes, 4 columns each, and serves all edges of the tile.
#pragma once

#include "cuda/block.cuh"
#include "cuda/edge_tile.hpp"
#include "cuda/vector.cuh"

namespace dpa2 {

constexpr int TILE = cuda::tile;
constexpr int ROW = cuda::tile_row(sizeof(real));
constexpr int WARPS = cuda::edge_warps;
// Blocks of a multiprocessor that leave the products their registers: without it, compilers spill some for a block more.
constexpr int BLOCKS = sizeof(real) == 4 ? 4 : 2;

/// Columns c..c + 3 of a row of `width` numbers in global memory, c a multiple of 4; beyond the row, zero.
__device__ __forceinline__ void load_row4(real* v, const real* row, int c, int width) {
  if (width % 4 == 0 && c < width) {
    load4(v, row + c);
  } else {
#pragma unroll
    for (int x = 0; x < 4; ++x) v[x] = c + x < width ? row[c + x] : real(0);
  }
}
__device__ __forceinline__ void store_row4(real* row, int c, int width, const real* v) {
  if (width % 4 == 0 && c < width) {
    store4(row + c, v);
  } else {
#pragma unroll
    for (int x = 0; x < 4; ++x)
      if (c + x < width) row[c + x] = v[x];
  }
}

/// A lane's place in the result: edges edge_of_lane() + 4 m of the tile, columns column_of_lane().. + 3 of the chunk.
__device__ __forceinline__ int edge_of_lane() { return threadIdx.x % 32 / 8; }
__device__ __forceinline__ int column_of_lane() { return threadIdx.x % 8 * 4; }

/// How many of n edges a tile has: whole groups of four; of two tiles, each about half.
__device__ __forceinline__ int edges_of_tile(int n) { return n <= TILE ? (n + 3) / 4 * 4 : n <= 2 * TILE ? (n + 7) / 8 * 4 : TILE; }

/// work.run<M>() with as many edges a lane as `count` edges need.
template <class Work>
__device__ __forceinline__ void with_edges_per_lane(int count, const Work& work) {
  switch ((count + 3) / 4) {
    case 8:
      return work.template run<8>();
    case 7:
      return work.template run<7>();
    case 6:
      return work.template run<6>();
    case 5:
      return work.template run<5>();
    case 4:
    case 3:
      return work.template run<4>();
    default:
      return work.template run<2>();
  }
}

/// acc[m][x] += sum_k a[4 m ROW + k] b[k TILE + x] for depth numbers k, a multiple of 4; a in shared memory from the lane's first edge
/// on, b in global memory from its first column on.
template <int M>
__device__ __forceinline__ void tile_product(real (&acc)[M][4], const real* a, const real* b, int depth) {
#pragma unroll 1
  for (int k = 0; k < depth; k += 4, a += 4, b += 4 * TILE) {
    real v[4][4];
#pragma unroll
    for (int s = 0; s < 4; ++s) load4(v[s], b + s * TILE);
#pragma unroll
    for (int m = 0; m < M; ++m) {
      real u[4];
      load4(u, a + 4 * m * ROW);
#pragma unroll
      for (int s = 0; s < 4; ++s)
#pragma unroll
        for (int x = 0; x < 4; ++x) acc[m][x] += u[s] * v[s][x];
    }
  }
}

/// Sixteen bytes number `at` of an array that begins at as many: an address of which the compiler knows that, else it stores numbers one by
/// one.
struct __align__(16) Sixteen {
  real at[VECTOR];
};
__device__ __forceinline__ real* sixteen(real* array, int at) { return reinterpret_cast<Sixteen*>(array)[at].at; }

/// A lane's columns of its edge number m in rows of edges.
__device__ __forceinline__ real* place_of_lane(real* rows, int m) {
  return sixteen(rows, (edge_of_lane() + 4 * m) * (ROW / VECTOR) + column_of_lane() / VECTOR);
}

/// A warp's result as rows of edges: to (4 M, ROW).
template <int M>
__device__ __forceinline__ void store_tile(real* to, const real (&acc)[M][4]) {
#pragma unroll
  for (int m = 0; m < M; ++m) store4(place_of_lane(to, m), acc[m]);
}

/// Four columns of a row of the warps' results together: their sum.
__device__ __forceinline__ void sum_of_slabs(real (&sum)[4], const real* slabs, int edge) {
  const real* at = slabs + edge * ROW + column_of_lane();
  load4(sum, at);
#pragma unroll
  for (int s = 1; s < WARPS; ++s) {
    real v[4];
    load4(v, at + s * TILE * ROW);
#pragma unroll
    for (int x = 0; x < 4; ++x) sum[x] += v[x];
  }
}

/// Columns c..c + 3 of the rows of a lane's edges; beyond n1, numbers that factors of zero leave out.
template <int M>
__device__ __forceinline__ void load_neighbours(real (&v)[M][4], const real* g1, const int* row, int n1, int c) {
  const int* own = row + edge_of_lane();
  if (n1 % 4 == 0) {
    const real* at = g1 + min(c, n1 - 4);
#pragma unroll
    for (int m = 0; m < M; ++m) load4(v[m], row_of_fours(at, own[4 * m], n1 / 4));
  } else {
#pragma unroll
    for (int m = 0; m < M; ++m) load_row4(v[m], row_of(g1, own[4 * m], n1), c, n1);
  }
}

/// slab (4 M, ROW) = a warp's edges, times `scale` of the lane's columns.
template <int M>
__device__ __forceinline__ void store_scaled(real* slab, const real (&v)[M][4], const real (&scale)[4]) {
#pragma unroll
  for (int m = 0; m < M; ++m) {
    const real u[4] = {v[m][0] * scale[0], v[m][1] * scale[1], v[m][2] * scale[2], v[m][3] * scale[3]};
    store4(place_of_lane(slab, m), u);
  }
}

/// row (TILE) at 16 bytes = the neighbours of a tile; behind the last edge, the last one again. By the first warp.
__device__ __forceinline__ void stage_rows(int* row, const int* j, int first, int count) {
  if (threadIdx.x < TILE) row[threadIdx.x] = j[first + min(static_cast<int>(threadIdx.x), count - 1)];
}

/// The sums of N values over LANES neighbouring lanes, N <= LANES: value number (lane % LANES) / (LANES / N) in each lane.
template <int N, int LANES>
__device__ __forceinline__ real lane_sums(real (&v)[N]) {
  constexpr int step = LANES / 2;
  if constexpr (N == 1) {
    return part_sum(v[0], LANES);
  } else {
    // One half of the lanes goes on with one half of the values.
    const bool upper = (threadIdx.x & step) != 0;
    real half[N / 2];
#pragma unroll
    for (int k = 0; k < N / 2; ++k) half[k] = (upper ? v[k + N / 2] : v[k]) + __shfl_xor_sync(FULL_MASK, upper ? v[k] : v[k + N / 2], step);
    return lane_sums<N / 2, step>(half);
  }
}

/// The sum over the lanes that have the same columns, in each of them.
__device__ __forceinline__ real sum_of_groups(real v) {
  v += __shfl_xor_sync(FULL_MASK, v, 8);
  return v + __shfl_xor_sync(FULL_MASK, v, 16);
}

}  // namespace dpa2
