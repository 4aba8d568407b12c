// The product of the two atoms' features as an update of the pair channel (theory 8.3, 12.7). One block per centre, tiles of at most 32
// edges; what flows back to the neighbours is in gather.cu.
#include "cuda/g1g1.hpp"

#include "cuda/edge_tile.cuh"

using namespace dpa2;

namespace {

/// Of the warp's channels of g1: its share of U before w in the columns k0.., to its slab.
struct Products {
  const cuda::G1G1Args<real>& a;
  real* slab;
  const int* row;
  int k0;

  template <int M>
  __device__ __forceinline__ void run() const {
    const real* W = a.W + cuda::strip_of(k0, a.n1) + column_of_lane();
    real acc[M][4] = {};
    for (int c0 = threadIdx.x / 32 * 32; c0 < a.n1; c0 += 32 * WARPS) {
      const int c = c0 + column_of_lane();
      real own[4], v[M][4];
      load_row4(own, row_of(a.g1, blockIdx.x, a.n1), c, a.n1);
      load_neighbours<M>(v, a.g1, row, a.n1, c);
      __syncwarp();
      store_scaled<M>(slab, v, own);
      __syncwarp();
      tile_product<M>(acc, slab + edge_of_lane() * ROW, W + c0 * TILE, TILE);
    }
    __syncwarp();
    store_tile<M>(slab, acc);
  }
};

}  // namespace

extern "C" __global__ void __launch_bounds__(cuda::edge_threads, BLOCKS) g1g1(const cuda::G1G1Args<real> a) {
  __align__(16) __shared__ real slabs[WARPS * TILE * ROW];
  __shared__ real weight[TILE];
  __align__(16) __shared__ int row[TILE];
  const int warp = threadIdx.x / 32, begin = a.start[blockIdx.x], end = a.start[blockIdx.x + 1];
  for (int first = begin, each = edges_of_tile(end - begin); first < end; first += each) {
    const int count = min(each, end - first);
    __syncthreads();
    stage_rows(row, a.j, first, count);
    if (threadIdx.x < count) weight[threadIdx.x] = a.w[first + threadIdx.x];
    for (int k0 = 0; k0 < a.n2; k0 += 32) {
      __syncthreads();
      with_edges_per_lane(count, Products{a, slabs + warp * TILE * ROW, row, k0});
      __syncthreads();
      for (int e = 4 * warp + edge_of_lane(); e < count; e += 4 * WARPS) {
        real sum[4];
        sum_of_slabs(sum, slabs, e);
        for (int x = 0; x < 4; ++x) sum[x] *= weight[e];
        store_row4(row_of(a.U, first + e, a.n2), k0 + column_of_lane(), a.n2, sum);
      }
    }
  }
}

namespace {

constexpr int DEPTH = 32;  // channels of g2 in shared memory together

/// Of the warp's columns c..: what the edges of a tile bring to their centre, added to sum; and to share (TILE), the gradients of w.
struct ToCentre {
  const cuda::G1G1BackwardArgs<real>& a;
  real *tile, *share;
  const real* weight;  // of a lane's edges side by side
  const int* row;
  real (&sum)[4];
  int first, count, c;
  bool mine;

  template <int M>
  __device__ __forceinline__ void run() const {
    const real* Wt = a.Wt + cuda::strip_of(c / TILE * TILE, a.n2) + column_of_lane();
    real y[M][4] = {};
    for (int k0 = 0; k0 < a.n2; k0 += DEPTH) {
      __syncthreads();  // what was in the tile has been read
      // Where half of the columns are enough, eight lanes bring two rows, which lie in different banks.
      const bool narrow = a.n2 - k0 <= DEPTH / 2;
      const int t = threadIdx.x, column = narrow ? t % 4 * 4 : t % 8 * 4;
      for (int e = narrow ? t / 32 * 8 + t / 4 % 2 * 4 + t / 8 % 4 : t / 8; e < 4 * M; e += cuda::edge_threads / (narrow ? 4 : 8)) {
        real v[4] = {};
        if (e < count) load_row4(v, row_of(a.dU, first + e, a.n2), k0 + column, a.n2);
        store4(sixteen(tile, (e * ROW + column) / VECTOR), v);
      }
      __syncthreads();
      if (mine) tile_product<M>(y, tile + edge_of_lane() * ROW, Wt + k0 * TILE, min(DEPTH, (a.n2 - k0 + 3) / 4 * 4));
    }
    real own[4], v[M][4], part[8] = {};  // zero where the warp has no columns
    load_row4(own, row_of(a.g1, blockIdx.x, a.n1), c, a.n1);
    load_neighbours<M>(v, a.g1, row, a.n1, c);
#pragma unroll
    for (int m0 = 0; m0 < M; m0 += 4) {
      real w[4];
      load4(w, weight + 8 * edge_of_lane() + m0);
#pragma unroll
      for (int m = m0; m < M && m < m0 + 4; ++m)
#pragma unroll
        for (int x = 0; x < 4; ++x) {
          const real along = y[m][x] * v[m][x];
          part[m] += along * own[x];
          sum[x] += w[m - m0] * along;
        }
    }
    const real all = lane_sums<8, 8>(part);
    share[threadIdx.x % 8 * 4 + edge_of_lane()] = all;
  }
};

}  // namespace

extern "C" __global__ void __launch_bounds__(cuda::edge_threads, BLOCKS) g1g1_backward(const cuda::G1G1BackwardArgs<real> a) {
  __align__(16) __shared__ real tile[TILE * ROW];
  __shared__ real share[WARPS * TILE];         // of the gradient of w
  __align__(16) __shared__ real weight[TILE];  // of edge e at e % 4 * 8 + e / 4; zero behind the last edge
  __align__(16) __shared__ int row[TILE];
  const int i = blockIdx.x, warp = threadIdx.x / 32, begin = a.start[i], end = a.start[i + 1];
  for (int c0 = 0; c0 < a.n1; c0 += 32 * WARPS) {
    const int chunk = c0 + 32 * warp, c = chunk + column_of_lane();
    const bool mine = chunk < a.n1;
    real sum[4] = {};
    for (int first = begin, each = edges_of_tile(end - begin); first < end; first += each) {
      const int count = min(each, end - first);
      stage_rows(row, a.j, first, count);
      if (threadIdx.x < TILE) weight[threadIdx.x % 4 * 8 + threadIdx.x / 4] = threadIdx.x < count ? a.w[first + threadIdx.x] : real(0);
      with_edges_per_lane(count, ToCentre{a, tile, share + TILE * warp, weight, row, sum, first, count, c, mine});
      __syncthreads();
      if (threadIdx.x < count) {
        real acc = 0;
        for (int s = 0; s < WARPS; ++s) acc += share[TILE * s + threadIdx.x];
        a.dw[first + threadIdx.x] += acc;
      }
    }
    for (int x = 0; x < 4; ++x) sum[x] = sum_of_groups(sum[x]);
    if (!mine || edge_of_lane() != 0) continue;
    real* to = row_of(a.dg1, i, a.n1);
    real out[4];
    load_row4(out, to, c, a.n1);
    for (int x = 0; x < 4; ++x) out[x] += sum[x];
    store_row4(to, c, a.n1, out);
  }
}
