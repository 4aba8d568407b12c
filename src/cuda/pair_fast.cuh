// The pair channel of a centre whose edges are one tile, in registers.
//
// The whole block calls; what one centre has left in shared memory may be in use until a path's first barrier, and a path ends with one.
#pragma once

#include "cuda/activation.cuh"
#include "cuda/pair_layer.hpp"
#include "cuda/pair_tiles.cuh"

namespace dpa2 {
namespace fast {

/// Whether a centre with n edges takes this path.
__device__ __forceinline__ bool fits(const cuda::PairConstants<real>&, int) { return false; }

__device__ __forceinline__ void forward(const cuda::PairLayerArgs<real>&, int, int, real*) {}

}  // namespace fast
}  // namespace dpa2
