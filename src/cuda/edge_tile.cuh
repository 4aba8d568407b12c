// Products of a tile of 32 edges with a matrix, by warps: each lane has 8 edges and 4 columns of the result in registers.
//
// The tile lies in shared memory channel by channel, so that a lane reads its edges by vector loads, and all lanes read the same
// channel: one wavefront. A row of the matrix is read by 8 lanes, 4 columns each, and serves 32 edges.
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

/// A lane's place in the result: edges edge()..edge() + 7 of the tile, columns column()..column() + 3 of the chunk.
__device__ __forceinline__ int edge_of_lane() { return threadIdx.x % 32 / 8 * 8; }
__device__ __forceinline__ int column_of_lane() { return threadIdx.x % 8 * 4; }

/// acc[e][x] += sum_k a[k ROW + e] b[k ldb + x], with scale[k] as a factor where Scaled; a and scale in shared memory, a from the
/// lane's first edge on, b in global memory from its first column on.
template <bool Scaled>
__device__ __forceinline__ void tile_product(real (&acc)[8][4], const real* a, const real* b, int ldb, int depth, const real* scale) {
#pragma unroll 4
  for (int k = 0; k < depth; ++k) {
    real u[8], v[4];
    load4(u, a + k * ROW);
    load4(u + 4, a + k * ROW + 4);
    load4(v, b + k * ldb);
    if (Scaled) {
      const real s = scale[k];
#pragma unroll
      for (int x = 0; x < 4; ++x) v[x] *= s;
    }
#pragma unroll
    for (int e = 0; e < 8; ++e)
#pragma unroll
      for (int x = 0; x < 4; ++x) acc[e][x] += u[e] * v[x];
  }
}

/// A warp's result as rows of edges: to (TILE, ROW).
__device__ __forceinline__ void store_tile(real* to, const real (&acc)[8][4]) {
#pragma unroll
  for (int e = 0; e < 8; ++e) store4(to + (edge_of_lane() + e) * ROW + column_of_lane(), acc[e]);
}

/// tile (depth, ROW) = columns k0.. of the rows first..first + count of edges, by the whole block; zero where there is nothing.
__device__ __forceinline__ void stage_edges(real* tile, const real* rows, int first, int count, int width, int k0, int depth) {
  const real* base = row_of(rows, first, width) + k0;
  const int left = width - k0;
  for (int g = threadIdx.x / 32; g < TILE / 4; g += WARPS)
    for (int k = threadIdx.x % 32; k < depth; k += 32) {
      real v[4];
#pragma unroll
      for (int x = 0; x < 4; ++x) v[x] = 4 * g + x < count && k < left ? base[(4 * g + x) * width + k] : real(0);
      store4(tile + k * ROW + 4 * g, v);
    }
}

/// slab (32, ROW) = channels c0..c0 + 31 of the rows of a tile's neighbours, by one warp; channels beyond n1 are zero.
__device__ __forceinline__ void stage_neighbours(real* slab, const real* g1, const int* row, int n1, int c0) {
  const int lane = threadIdx.x % 32, c = c0 + lane;
#pragma unroll 2
  for (int g = 0; g < TILE / 4; ++g) {
    int j[4];
    real v[4];
    load4(j, row + 4 * g);
#pragma unroll
    for (int x = 0; x < 4; ++x) v[x] = c < n1 ? row_of(g1, j[x], n1)[c] : real(0);
    store4(slab + lane * ROW + 4 * g, v);
  }
}

/// row (TILE) at 16 bytes = the neighbours of a tile; behind the last edge, the last one again. By the first warp.
__device__ __forceinline__ void stage_rows(int* row, const int* j, int first, int count) {
  if (threadIdx.x < TILE) row[threadIdx.x] = j[first + min(static_cast<int>(threadIdx.x), count - 1)];
}

/// y = rows of edges (., width) times the columns of B that begin at b, as tile_product gives them. All threads of the block come here,
/// `mine` says whether the warp has columns. tile (DEPTH, ROW).
template <int DEPTH>
__device__ __forceinline__ void project(real (&y)[8][4], real* tile, const real* rows, int first, int count, int width, const real* b,
                                        int ldb, bool mine) {
  for (int k0 = 0; k0 < width; k0 += DEPTH) {
    const int depth = min(DEPTH, (width - k0 + 7) / 8 * 8);
    __syncthreads();  // what was in the tile has been read
    stage_edges(tile, rows, first, count, width, k0, depth);
    __syncthreads();
    if (mine) tile_product<false>(y, tile + edge_of_lane(), b + k0 * ldb, ldb, depth, nullptr);
  }
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
__device__ __forceinline__ real sum_of_edges(real v) {
  v += __shfl_xor_sync(FULL_MASK, v, 8);
  return v + __shfl_xor_sync(FULL_MASK, v, 16);
}

}  // namespace dpa2
