// The update of g2 in a layer without attention among edges: linear2 and residual (theory 8.2, 8.11, 12.3, 12.4). A warp takes 32 edges.
#include "cuda/pair_rows.cuh"

using namespace dpa2;

namespace {

constexpr int THREADS = cuda::pair_update_threads;
// Blocks per multiprocessor that registers have to allow: 102 of them per thread; for double 128, and 168 in the backward.
constexpr int BLOCKS = sizeof(real) == 4 ? 5 : 4, BLOCKS_BACKWARD = sizeof(real) == 4 ? 5 : 3;

__device__ __forceinline__ EdgeRows rows_of_warp(const int* start, int centres, int n2) {
  const int first = (blockIdx.x * cuda::pair_update_warps + threadIdx.x / 32) * TILE, left = start[centres] - first;
  return {first, left < TILE ? left : TILE, n2};
}

}  // namespace

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) pair_update(const cuda::PairLayerArgs<real> a) {
  DYNAMIC_SHARED(real, shared);
  const EdgeRows e = rows_of_warp(a.start, a.centres, a.with.n2);
  if (e.count > 0) update_rows(e, shared + opaque(threadIdx.x / 32 * PADDED_TILE), a, nullptr);
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_BACKWARD) pair_update_backward(const cuda::PairLayerBackwardArgs<real> a) {
  DYNAMIC_SHARED(real, shared);
  const EdgeRows e = rows_of_warp(a.start, a.centres, a.with.n2);
  if (e.count <= 0) return;
  terms_backward(e, a, nullptr);
  real* const saved = row_of(a.scratch, e.first / TILE, cuda::pair_update_scratch(e.n2));
  update_rows_backward(e, shared + opaque(threadIdx.x / 32 * PADDED_TILE), a, saved);
}
