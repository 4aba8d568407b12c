// What edges bring to their neighbours: sums over the transposed list, each in a fixed order. One block per atom; its warps share the
// edges, a lane has four channels.
#include "cuda/edge_tile.cuh"
#include "cuda/messages.hpp"

using namespace dpa2;

extern "C" __global__ void __launch_bounds__(cuda::edge_threads) sum_incoming(const cuda::SumIncomingArgs<real> a) {
  __align__(16) __shared__ real part[WARPS * 128];
  const int i = blockIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32, begin = a.begin[i], end = a.begin[i + 1];
  for (int c0 = 0; c0 < a.width; c0 += 128) {
    const int c = c0 + 4 * lane;
    real sum[4] = {};
    if (c < a.width)
#pragma unroll 4
      for (int q = begin + warp; q < end; q += WARPS) {
        real v[4];
        load_row4(v, row_of(a.rows, a.edges[q], a.width), c, a.width);
#pragma unroll
        for (int x = 0; x < 4; ++x) sum[x] += v[x];
      }
    __syncthreads();
    store4(part + 128 * warp + 4 * lane, sum);
    __syncthreads();
    const int t = threadIdx.x;
    if (c0 + t < a.width) {
      real* to = row_of(a.out, i, a.width) + c0 + t;
      real total = i < a.added ? *to : real(0);
      for (int s = 0; s < WARPS; ++s) total += part[128 * s + t];
      *to = total;
    }
  }
}
