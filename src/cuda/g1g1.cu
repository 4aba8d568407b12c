// The product of the two atoms' features as an update of the pair channel (theory 8.3, 12.7). One block per centre, tiles of 32 edges.
#include "cuda/g1g1.hpp"

#include "cuda/edge_tile.cuh"

using namespace dpa2;

extern "C" __global__ void __launch_bounds__(cuda::edge_threads, BLOCKS) g1g1(const cuda::G1G1Args<real> a) {
  __align__(16) __shared__ real slabs[WARPS * TILE * ROW];
  __shared__ real own[WARPS * 32];
  __shared__ real weight[TILE];
  __align__(16) __shared__ int row[TILE];
  const int i = blockIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32, begin = a.start[i], end = a.start[i + 1];
  const int ldb = cuda::padded_to_edge_tiles(a.n2);
  const real* centre = row_of(a.g1, i, a.n1);
  real* slab = slabs + warp * TILE * ROW;
  real* scale = own + warp * 32;
  for (int first = begin; first < end; first += TILE) {
    const int count = min(TILE, end - first);
    __syncthreads();
    stage_rows(row, a.j, first, count);
    if (threadIdx.x < count) weight[threadIdx.x] = a.w[first + threadIdx.x];
    for (int k0 = 0; k0 < a.n2; k0 += 32) {
      __syncthreads();
      real acc[8][4] = {};
      // A warp has channels of its own; the sum over them is made at the end.
      for (int c0 = 32 * warp; c0 < a.n1; c0 += 32 * WARPS) {
        __syncwarp();
        scale[lane] = c0 + lane < a.n1 ? centre[c0 + lane] : real(0);
        stage_neighbours(slab, a.g1, row, a.n1, c0);
        __syncwarp();
        tile_product<true>(acc, slab + edge_of_lane(), a.W + c0 * ldb + k0 + column_of_lane(), ldb, 32, scale);
      }
      __syncwarp();
      store_tile(slab, acc);
      __syncthreads();
      if (k0 + lane < a.n2)
        for (int e = warp; e < count; e += WARPS) {
          real sum = 0;
          for (int s = 0; s < WARPS; ++s) sum += slabs[(s * TILE + e) * ROW + lane];
          row_of(a.U, first + e, a.n2)[k0 + lane] = weight[e] * sum;
        }
    }
  }
}

extern "C" __global__ void __launch_bounds__(cuda::edge_threads, BLOCKS) g1g1_backward(const cuda::G1G1BackwardArgs<real> a) {
  constexpr int DEPTH = 64;  // channels of g2 in shared memory together
  __align__(16) __shared__ real tile[DEPTH * ROW];
  __shared__ real share[WARPS * TILE];  // of the gradient of w
  __shared__ real weight[TILE];
  __align__(16) __shared__ int row[TILE];
  const int i = blockIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32, begin = a.start[i], end = a.start[i + 1];
  const int e0 = edge_of_lane(), ldb = cuda::padded_to_edge_tiles(a.n1);
  for (int c0 = 0; c0 < a.n1; c0 += 32 * WARPS) {
    const int chunk = c0 + 32 * warp, c = chunk + column_of_lane(), busy = min(WARPS, (a.n1 - c0 + 31) / 32);
    const bool mine = warp < busy;
    real own[4] = {}, sum[4] = {};
    if (mine) load_row4(own, row_of(a.g1, i, a.n1), c, a.n1);
    for (int first = begin; first < end; first += TILE) {
      const int count = min(TILE, end - first);
      stage_rows(row, a.j, first, count);
      if (threadIdx.x < count) weight[threadIdx.x] = a.w[first + threadIdx.x];
      real y[8][4] = {};
      project<DEPTH>(y, tile, a.dU, first, count, a.n2, a.Wt + c, ldb, mine);
      if (mine) {
        real part[8];
#pragma unroll
        for (int e = 0; e < 8; ++e) {
          part[e] = 0;
          if (e0 + e >= count) continue;
          const real w = weight[e0 + e];
          real* to = row_of(a.dg1_edge, first + e0 + e, a.n1);
          real v[4], out[4] = {};
          load_row4(v, row_of(a.g1, row[e0 + e], a.n1), c, a.n1);
          if (a.fresh == 0) load_row4(out, to, c, a.n1);
#pragma unroll
          for (int x = 0; x < 4; ++x) {
            const real along = y[e][x] * own[x];
            out[x] += w * along;
            part[e] += along * v[x];
            sum[x] += w * y[e][x] * v[x];
          }
          store_row4(to, c, a.n1, out);
        }
        // Eight lanes have the same edges; this is the sum of edge number `lane`.
        share[TILE * warp + lane] = lane_sums<8, 8>(part);
      }
      __syncthreads();
      if (threadIdx.x < count) {
        real acc = 0;
        for (int s = 0; s < busy; ++s) acc += share[TILE * s + lane];
        a.dw[first + lane] += acc;
      }
    }
    if (!mine) continue;
    for (int x = 0; x < 4; ++x) sum[x] = sum_of_edges(sum[x]);
    if (e0 != 0) continue;
    real* to = row_of(a.dg1, i, a.n1);
    real out[4];
    load_row4(out, to, c, a.n1);
    for (int x = 0; x < 4; ++x) out[x] += sum[x];
    store_row4(to, c, a.n1, out);
  }
}
