// What several kernels share: sums over lanes, and rows of edges.
#pragma once

#include "cuda/portable.cuh"

namespace dpa2 {

/// Element 0 of row `row` of an array with `width` columns: edges times channels exceed 32 bits in large systems.
template <class T>
__device__ __forceinline__ T* row_of(T* array, int row, int width) {
  return array + static_cast<long long>(row) * width;
}

/// A number that is the same in all lanes of the warp, such that the compiler knows it: branches on it then need no care for lanes apart.
__device__ __forceinline__ int uniform(int v) { return __shfl_sync(FULL_MASK, v, 0); }

/// The sum over a warp, in every lane; all lanes of the warp take part.
__device__ __forceinline__ real warp_sum(real v) {
  for (int step = 16; step > 0; step /= 2) v += __shfl_xor_sync(FULL_MASK, v, step);
  return v;
}

/// Of N values per lane, the sums over the lanes that differ in bits 2, 3 and 4: lane l is left with those of the values
/// l / 4 * (N / 8)..., in v[0], v[1], ....
template <int N, int STEP = 16, int SIZE>
__device__ __forceinline__ void scatter_sums(real (&v)[SIZE]) {
  static_assert(N % 2 == 0 && N <= SIZE, "values are halved three times");
  const bool upper = (threadIdx.x & STEP) != 0;
#pragma unroll
  for (int n = 0; n < N / 2; ++n) {
    const real kept = upper ? v[n + N / 2] : v[n], given = upper ? v[n] : v[n + N / 2];
    v[n] = kept + __shfl_xor_sync(FULL_MASK, given, STEP);
  }
  if constexpr (STEP > 4) scatter_sums<N / 2, STEP / 2>(v);
}

/// The same of numbers in double.
__device__ __forceinline__ double sum_of_warp(double v) {
  for (int step = 16; step > 0; step /= 2) v += __shfl_xor_sync(FULL_MASK, v, step);
  return v;
}

/// The sum over `parts` neighbouring lanes (a power of two), in each of them; all lanes of the warp take part.
__device__ __forceinline__ real part_sum(real v, int parts) {
  for (int step = parts / 2; step > 0; step /= 2) v += __shfl_xor_sync(FULL_MASK, v, step);
  return v;
}

__device__ __forceinline__ real part_max(real v, int parts) {
  for (int step = parts / 2; step > 0; step /= 2) {
    const real other = __shfl_xor_sync(FULL_MASK, v, step);
    v = other > v ? other : v;
  }
  return v;
}

}  // namespace dpa2
