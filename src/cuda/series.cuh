// Chebyshev series in kernels where a warp has a centre: where a scalar lies, and sums of the warp that end in different lanes.
//
//   -DWARPS=n   warps of a block
//   -DGATED     there is a types' network of strip mode
#pragma once

#include "cuda/block.cuh"
#include "cuda/series.hpp"
#include "cuda/vector.cuh"

#ifndef WARPS
#define WARPS 1
#endif

namespace dpa2 {

#ifdef GATED
constexpr bool gated = true;
#else
constexpr bool gated = false;
#endif
// Blocks of a multiprocessor that registers are to leave room for: without a number the compiler wants more of them, and spills.
constexpr int BLOCKS = (sizeof(real) == 4 ? 16 : 8) / WARPS;
constexpr int K = cuda::series_terms(sizeof(real));
constexpr int KINDS = gated ? 2 : 1;  // of sums: plain, and with the gate's switch

/// The interval of s on a curve, or of the range's beginning, and not `inside`, where s is outside.
__device__ __forceinline__ int interval_of(const cuda::SeriesArgs<real>& series, real s, int curve, bool& inside) {
  const bool here = s >= series.lo && s < series.hi;
  inside = inside && here;
  const int cell = min(int(((here ? s : series.lo) - series.lo) * series.inv_cell), series.cells - 1);
  return series.interval[curve * series.cells + cell];
}

/// s on the scale of an interval, -1 to 1, and the derivative of that.
__device__ __forceinline__ real argument(const cuda::SeriesArgs<real>& series, int interval, real s, real& slope) {
  const Quad place = read_quad(series.place + cuda::series_place * interval);
  slope = place.at[2];
  return ((s - place.at[0]) - place.at[1]) * place.at[2];
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

}  // namespace dpa2
