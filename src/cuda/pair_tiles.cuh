// What the attention among edges and its gradient share: rows and edges of a centre in shared memory, sums over its warps.
#pragma once

#include "cuda/tiles.cuh"
#include "math/attention.hpp"

namespace dpa2 {

/// h2 and the switch of an edge.
struct __align__(16) Edge {
  real h[3], w;

  __device__ __forceinline__ real times(const Edge& other) const { return h[0] * other.h[0] + h[1] * other.h[1] + h[2] * other.h[2]; }
};

/// The edges of a centre, in tiles.
struct Centre {
  int first, n;
  __device__ __forceinline__ int tiles() const { return cuda::tiles_of(n); }
  /// How many edges a tile has.
  __device__ __forceinline__ int count(int tile) const { return n - tile * TILE < TILE ? n - tile * TILE : TILE; }
};

/// Into `to`: 32 edges from `first` on, of which `count` exist; the others are zero. The whole block takes part.
__device__ __forceinline__ void load_edges(Edge* to, const real* h2, const real* w, int first, int count) {
  for (int t = threadIdx.x; t < TILE; t += blockDim.x) {
    const bool there = t < count;
    for (int x = 0; x < 3; ++x) to[t].h[x] = there ? row_of(h2, first + t, 3)[x] : real(0);
    to[t].w = there && w != nullptr ? w[first + t] : real(0);
  }
}

/// Adds four numbers per edge of each warp, `apart` numbers from each other: out(edge, which, sum). The same thread gets the same ones every
/// time. No barrier inside.
template <class Out>
__device__ __forceinline__ void add_edges(const real* sums, int apart, int warps, int count, Out out) {
  for (int t = threadIdx.x; t < 4 * count; t += blockDim.x) {
    real sum = sums[t];
#pragma unroll 1
    for (int other = 1; other < warps; ++other) sum += sums[other * apart + t];
    out(t / 4, t % 4, sum);
  }
}

/// Sums and the largest over the four lanes that have the same columns, in each of them.
__device__ __forceinline__ real sum_over_rows(real v) {
  v += __shfl_xor_sync(FULL_MASK, v, 8);
  return v + __shfl_xor_sync(FULL_MASK, v, 16);
}
__device__ __forceinline__ real most_over_rows(real v) {
  real other = __shfl_xor_sync(FULL_MASK, v, 8);
  v = other > v ? other : v;
  other = __shfl_xor_sync(FULL_MASK, v, 16);
  return other > v ? other : v;
}

/// Number `lane_row()` of four, summed over the four lanes that have the same columns.
__device__ __forceinline__ real own_sum_over_rows(const real (&v)[4]) {
  const bool upper = (threadIdx.x & 16) != 0, odd = (threadIdx.x & 8) != 0;
  const real first = (upper ? v[2] : v[0]) + __shfl_xor_sync(FULL_MASK, upper ? v[0] : v[2], 16);
  const real second = (upper ? v[3] : v[1]) + __shfl_xor_sync(FULL_MASK, upper ? v[1] : v[3], 16);
  return (odd ? second : first) + __shfl_xor_sync(FULL_MASK, odd ? first : second, 8);
}

/// Number `lane_column() / 2` of four, summed over the eight lanes that have the same rows.
__device__ __forceinline__ real own_sum_over_columns(const real (&v)[4]) {
  const bool upper = (threadIdx.x & 4) != 0, odd = (threadIdx.x & 2) != 0;
  const real first = (upper ? v[2] : v[0]) + __shfl_xor_sync(FULL_MASK, upper ? v[0] : v[2], 4);
  const real second = (upper ? v[3] : v[1]) + __shfl_xor_sync(FULL_MASK, upper ? v[1] : v[3], 4);
  const real sum = (odd ? second : first) + __shfl_xor_sync(FULL_MASK, odd ? first : second, 2);
  return sum + __shfl_xor_sync(FULL_MASK, sum, 1);
}

}  // namespace dpa2
