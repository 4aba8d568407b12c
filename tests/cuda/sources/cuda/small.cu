// Small kernels for the tests of the host: see test_driver.py.
#include "cuda/portable.cuh"
#include "cuda/small.hpp"

using namespace dpa2;

#ifdef MISTAKE
this is a mistake;
#endif

extern "C" __global__ void __launch_bounds__(64) scale(const cuda::ScaleArgs<real> a) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < a.count) a.to[i] = static_cast<real>(a.from[i]) * a.by;
}

extern "C" __global__ void __launch_bounds__(64) through_shared(const cuda::ScaleArgs<real> a) {
  __shared__ real fixed[256 / sizeof(real)];
  DYNAMIC_SHARED(real, moving);
  const int i = static_cast<int>(threadIdx.x);
  if (i < a.count) fixed[i] = moving[i] = static_cast<real>(a.from[i]) * a.by;
#ifndef NO_BARRIER
  __syncthreads();
#endif
  const int last = a.count - 1 - i;
  if (i < a.count) a.to[last] = (fixed[last] + moving[last]) / 2;
}

// Half of a warp waits for all of it.
extern "C" __global__ void __launch_bounds__(32) apart(const cuda::ScaleArgs<real> a) {
  if (threadIdx.x < 16 && a.count == 0) __syncwarp(FULL_MASK);
}
