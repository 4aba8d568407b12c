// Chebyshev series in kernels where a warp has a centre: where a scalar lies.
//
//   -DWARPS=n   warps of a block
#pragma once

#include "cuda/embedding_warp.cuh"
#include "cuda/series.hpp"
#include "cuda/vector.cuh"

#ifndef WARPS
#define WARPS 1
#endif

namespace dpa2 {

// Blocks of a multiprocessor that registers are to leave room for: without a number the compiler wants more of them, and spills.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000 && !defined(GATED)
constexpr int IN_DOUBLE = 12;  // left alone, the compiler takes more registers there than it needs
#else
constexpr int IN_DOUBLE = 8;
#endif
constexpr int BLOCKS = (sizeof(real) == 4 ? 16 : IN_DOUBLE) / WARPS;
constexpr int K = cuda::series_terms(sizeof(real));
constexpr int KINDS = gated ? 2 : 1;  // of sums: plain, and with the gate's switch

/// The place behind so many numbers, a multiple of four, such that the compiler knows that vectors begin there.
__device__ __forceinline__ real* behind(real* from, int numbers) { return reinterpret_cast<Quad*>(from)[numbers / 4].at; }

__device__ __forceinline__ bool in_range(const cuda::SeriesArgs<real>& series, real s) { return s >= series.lo && s < series.hi; }

/// The interval of s on a curve, or of the range's beginning, and not `inside`, where s is outside.
__device__ __forceinline__ int interval_of(const cuda::SeriesArgs<real>& series, real s, int curve, bool& inside) {
  const bool here = in_range(series, s);
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

}  // namespace dpa2
