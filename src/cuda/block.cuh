// What several kernels share: sums over lanes, rows of edges, and small dense products by the threads of one block.
#pragma once

#include "cuda/portable.cuh"

namespace dpa2 {

/// Element 0 of row `row` of an array with `width` columns: edges times channels exceed 32 bits in large systems.
template <class T>
__device__ __forceinline__ T* row_of(T* array, int row, int width) {
  return array + static_cast<long long>(row) * width;
}

/// The sum over a warp, in every lane; all lanes of the warp take part.
__device__ __forceinline__ real warp_sum(real v) {
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

/// The gradient of the Gram products M_c M_a, a < axis, with respect to channel c of one row M (n): dgram has the pair (c, a) at
/// c dc + a da.
__device__ __forceinline__ real gram_gradient(int n, int axis, int c, const real* dgram, int dc, int da, const real* M) {
  real acc = 0;
  for (int a = 0; a < axis; ++a) acc += dgram[c * dc + a * da] * M[a];
  if (c < axis)
    for (int k = 0; k < n; ++k) acc += dgram[k * dc + c * da] * M[k];
  return acc;
}

/// out(i, j, sum_k A(k, i) B(k, j)) for i < m and j < n, A(k, i) = a[k ak + i ai], B(k, j) = b[k bk + j bj], by all threads of the
/// block, four by two results at a time. No barrier inside: the same thread gets the same (i, j) in every call of one size.
template <class Out>
__device__ __forceinline__ void block_product(int m, int n, int depth, const real* a, int ak, int ai, const real* b, int bk, int bj,
                                              Out out) {
  const int rows = (m + 3) / 4, columns = (n + 1) / 2;
  for (int t = threadIdx.x; t < rows * columns; t += blockDim.x) {
    const int i0 = t / columns * 4, j0 = t % columns * 2;
    int at[4];
    // Beyond the edge, the last row again: nothing is read that does not exist.
    for (int x = 0; x < 4; ++x) at[x] = (i0 + x < m ? i0 + x : m - 1) * ai;
    const int b0 = j0 * bj, b1 = (j0 + 1 < n ? j0 + 1 : j0) * bj;
    real acc[4][2] = {};
    for (int k = 0; k < depth; ++k) {
      const real* ap = a + k * ak;
      const real* bp = b + k * bk;
      const real v0 = bp[b0], v1 = bp[b1];
#pragma unroll
      for (int x = 0; x < 4; ++x) {
        const real u = ap[at[x]];
        acc[x][0] += u * v0;
        acc[x][1] += u * v1;
      }
    }
#pragma unroll
    for (int x = 0; x < 4; ++x)
      if (i0 + x < m) {
        out(i0 + x, j0, acc[x][0]);
        if (j0 + 1 < n) out(i0 + x, j0 + 1, acc[x][1]);
      }
  }
}

}  // namespace dpa2
