// The pair channel of a centre with any number of edges, channels and heads, in tiles.
#pragma once

#include "cuda/activation.cuh"
#include "cuda/pair_layer.hpp"
#include "cuda/pair_tiles.cuh"

namespace dpa2 {
namespace general {

__device__ __forceinline__ void forward(const cuda::PairLayerArgs<real>&, int, int, real*) {}

}  // namespace general
}  // namespace dpa2
