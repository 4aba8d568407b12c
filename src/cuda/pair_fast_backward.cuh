// The gradient of the pair channel of a centre whose edges are one tile, in registers.
#pragma once

#include "cuda/pair_fast.cuh"

namespace dpa2 {
namespace fast {

__device__ __forceinline__ bool fits_backward(const cuda::PairConstants<real>&, int) { return false; }

__device__ __forceinline__ void backward(const cuda::PairLayerBackwardArgs<real>&, int, int, real*) {}

}  // namespace fast
}  // namespace dpa2
