// The pair channel of a layer, forward and backward: attention among the edges of a centre, linear2, LayerNorm, residual
// (theory 8.2, 8.5-8.7, 8.11, 12.3, 12.4, 12.8-12.10, S1-S3, S19).
//
// Blocks take centre after centre. The kernels are compiled in one of two ways, and have the registers of what is in them. PAIR_FAST=1
// (pair_layer_fast): paths in registers, one for centres of one tile of edges and one for those of more, which take longest and come first.
// PAIR_FAST=0: one path for all centres, with any number of edges and channels.
// Nothing is kept for the backward, which computes the attention again.
#include "cuda/pair_centres.cuh"
#include "cuda/pair_fast.cuh"
#include "cuda/pair_fast_backward.cuh"
#include "cuda/pair_general.cuh"
#include "cuda/pair_general_backward.cuh"
#include "cuda/pair_tiled.cuh"
#include "cuda/pair_tiled_backward.cuh"

#ifndef PAIR_FAST
#define PAIR_FAST 1
#endif

using namespace dpa2;

namespace {

constexpr bool FAST = PAIR_FAST != 0 && sizeof(real) == 4;
constexpr int THREADS = 32 * cuda::pair_layer_most_warps(sizeof(real));
// Blocks per multiprocessor that registers have to allow.
constexpr int BLOCKS = cuda::pair_layer_resident(FAST, sizeof(real), false) * 32 / THREADS;
constexpr int BLOCKS_BACKWARD = cuda::pair_layer_resident(FAST, sizeof(real), true) * 32 / THREADS;

}  // namespace

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) pair_layer(const cuda::PairLayerArgs<real> a) {
  DYNAMIC_SHARED(real, shared);
  real* const room = shared + cuda::pair_layer_own_slots(sizeof(real)) / sizeof(real);
  const auto many = [&](int first, int n) {
    if constexpr (FAST)
      fast::forward_tiled(a, first, n, room + opaque(0));
    else
      general::forward(a, first, n, room + opaque(0));
  };
  const auto one = [&](int first, int n) {
    if constexpr (FAST) fast::forward(a, first, n, room + opaque(0));
  };
  each_centre(a.start, a.centres, !FAST, a.taken, reinterpret_cast<int*>(shared), many, one);
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_BACKWARD) pair_layer_backward(const cuda::PairLayerBackwardArgs<real> a) {
  DYNAMIC_SHARED(real, shared);
  real* const room = shared + cuda::pair_layer_own_slots(sizeof(real)) / sizeof(real);
  const auto many = [&](int first, int n) {
    if constexpr (FAST)
      fast::backward_tiled(a, first, n, room + opaque(0));
    else
      general::backward(a, first, n, room + opaque(0));
  };
  const auto one = [&](int first, int n) {
    if constexpr (FAST) fast::backward(a, first, n, room + opaque(0));
  };
  each_centre(a.start, a.centres, !FAST, a.taken, reinterpret_cast<int*>(shared), many, one);
}
