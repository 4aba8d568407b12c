// Attention of a centre over the g1 of its neighbours (theory 8.10, 12.11, S7): keys folded with queries before (tq), values with the
// head map after (o). One block per centre, tiles of 32 edges, four heads at a time, each with a warp of its own for what is a number per
// edge: the largest logit and the sum of exponentials run along with the tiles.
#include "cuda/local_attention.hpp"

#include "cuda/edge_tile.cuh"
#include "math/attention.hpp"

using namespace dpa2;

namespace {

constexpr int HEADS = WARPS;
static_assert(HEADS % 2 == 0, "vectors come in pairs");

constexpr int PITCH = TILE + 16;  // of what is a number per edge: two rows of it, half as many edges of each, lie in different banks

/// Scalar products of the rows of a tile's neighbours with vectors (., n1), `heads` of a and in the second half of N those of b, over
/// the warp's channels: to the begin of its slab (32, ROW), as (N, PITCH). vectors (N, 32) are its own room too.
template <int N>
__device__ __forceinline__ void row_products(real* slab, real* vectors, const int* row, const real* g1, int n1, int heads, const real* a,
                                             const real* b) {
  const int lane = threadIdx.x % 32;
  const real ones[4] = {1, 1, 1, 1};
  // Lanes next to each other have the same two edges, one of them the even vectors, the other the odd ones; halves of these are swapped, so
  // that two of them are read at once.
  const int edge = lane / 2, odd = lane % 2, swapped = 16 * odd;
  real acc[N / 2][2] = {};
  for (int c0 = threadIdx.x / 32 * 32; c0 < n1; c0 += 32 * WARPS) {
    const int c = c0 + lane;
    __syncwarp();
#pragma unroll
    for (int h = 0; h < HEADS; ++h) {
      const bool inside = h < heads && c < n1;
      const int at = 32 * h + (h % 2 == 0 ? lane : lane ^ 16);
      vectors[at] = inside ? a[h * n1 + c] : real(0);
      if (N > HEADS) vectors[32 * HEADS + at] = inside ? b[h * n1 + c] : real(0);
    }
    real rows[TILE / 4][4];
    load_neighbours<TILE / 4>(rows, g1, row, n1, c0 + column_of_lane());
    store_scaled<TILE / 4>(slab, rows, ones);
    __syncwarp();
#pragma unroll 2
    for (int m = 0; m < 32; m += 4) {
      real v[2][4];
      load4(v[0], slab + edge * ROW + m);
      load4(v[1], slab + (edge + 16) * ROW + m);
#pragma unroll
      for (int k = 0; k < N / 2; ++k) {
        real q[4];
        load4(q, vectors + 64 * k + 32 * odd + (m ^ swapped));
#pragma unroll
        for (int s = 0; s < 2; ++s) acc[k][s] += q[0] * v[s][0] + q[1] * v[s][1] + q[2] * v[s][2] + q[3] * v[s][3];
      }
    }
  }
  __syncwarp();
#pragma unroll
  for (int k = 0; k < N / 2; ++k)
#pragma unroll
    for (int s = 0; s < 2; ++s) slab[PITCH * (2 * k + odd) + edge + 16 * s] = acc[k][s];
}

/// Product k of an edge: the sum over the warps' slabs.
__device__ __forceinline__ real whole_product(const real* slabs, int k, int edge) {
  real acc = 0;
  for (int s = 0; s < WARPS; ++s) acc += slabs[s * TILE * ROW + PITCH * k + edge];
  return acc;
}

}  // namespace

extern "C" __global__ void __launch_bounds__(cuda::edge_threads, 4) local_attention(const cuda::LocalAttentionArgs<real> a) {
  __align__(16) __shared__ real slabs[WARPS * TILE * ROW];
  __align__(16) __shared__ real vectors[WARPS * HEADS * 32];
  __align__(16) __shared__ real probability[HEADS * TILE];  // times w; zero behind the last edge
  __align__(16) __shared__ int row[TILE];
  static_assert(sizeof(slabs) + sizeof(vectors) + sizeof(probability) + sizeof(row) <= 48 * 1024, "any device has this");
  const int i = blockIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32, begin = a.start[i], end = a.start[i + 1];
  const real npad = a.nsel > end - begin ? real(a.nsel - (end - begin)) : real(0);
  for (int h0 = 0; h0 < a.nh; h0 += HEADS) {
    const int heads = min(HEADS, a.nh - h0), h = h0 + warp;
    const bool mine = warp < heads;
    // Padded slots have the logit -shift, where the search for the largest begins.
    real top = math::least_logit(npad, a.shift), total = npad;
    for (int first = begin; first < end; first += TILE) {
      const int count = min(TILE, end - first);
      __syncthreads();
      stage_rows(row, a.j, first, count);
      __syncthreads();
      row_products<HEADS>(slabs + warp * TILE * ROW, vectors + warp * HEADS * 32, row, a.g1, a.n1, heads,
                          row_of(a.tq, i, a.nh * a.n1) + h0 * a.n1, nullptr);
      __syncthreads();
      if (mine) {
        real logit = 0;
        if (lane < count) {
          const real w = a.w[first + lane];
          logit = math::logit(whole_product(slabs, warp, lane), w, w, a.shift);
          row_of(a.logit, first + lane, a.nh)[h] = logit;
        }
        const real largest = part_max(lane < count ? logit : top, 32), before = top;
        top = largest > top ? largest : top;
        total = total * DeviceMath::exp(before - top) + warp_sum(lane < count ? DeviceMath::exp(logit - top) : real(0));
      }
    }
    const real inverse = total > real(0) ? real(1) / total : real(0);
    if (mine && lane == 0) {
      row_of(a.largest, i, a.nh)[h] = top;
      row_of(a.inverse, i, a.nh)[h] = inverse;
    }
    for (int c0 = 0; c0 < a.n1; c0 += 32 * WARPS) {
      const int c = c0 + threadIdx.x;
      real acc[HEADS] = {};
      for (int first = begin; first < end; first += TILE) {
        const int count = min(TILE, end - first);
        __syncthreads();
        stage_rows(row, a.j, first, count);
        real p = 0;
        if (mine && lane < count) p = DeviceMath::exp(row_of(a.logit, first + lane, a.nh)[h] - top) * inverse * a.w[first + lane];
        probability[TILE * warp + lane] = p;
        __syncthreads();
        if (c < a.n1)
#pragma unroll 2
          for (int e = 0; e < count; e += 4) {
            int j[4];
            real v[4];
            load4(j, row + e);
#pragma unroll
            for (int s = 0; s < 4; ++s) v[s] = row_of(a.g1, j[s], a.n1)[c];
#pragma unroll
            for (int k = 0; k < HEADS; ++k) {
              real q[4];
              load4(q, probability + TILE * k + e);
              acc[k] += q[0] * v[0] + q[1] * v[1] + q[2] * v[2] + q[3] * v[3];
            }
          }
      }
      if (c < a.n1)
#pragma unroll
        for (int k = 0; k < HEADS; ++k)
          if (k < heads) row_of(a.o, i, a.nh * a.n1)[(h0 + k) * a.n1 + c] = acc[k];
    }
  }
}

extern "C" __global__ void __launch_bounds__(cuda::edge_threads, BLOCKS)
    local_attention_backward(const cuda::LocalAttentionBackwardArgs<real> a) {
  __align__(16) __shared__ real slabs[WARPS * TILE * ROW];
  __align__(16) __shared__ real vectors[WARPS * 2 * HEADS * 32];
  __align__(16) __shared__ real dscore[HEADS * TILE];  // zero behind the last edge
  __shared__ real weight[HEADS * TILE];                // gradient of w
  __align__(16) __shared__ int row[TILE];
  static_assert(sizeof(slabs) + sizeof(vectors) + sizeof(dscore) + sizeof(weight) + sizeof(row) <= 48 * 1024, "any device has this");
  const int i = blockIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32, begin = a.start[i], end = a.start[i + 1];
  const real* query = row_of(a.tq, i, a.nh * a.n1);
  const real* given = row_of(a.dout, i, a.nh * a.n1);
  for (int h0 = 0; h0 < a.nh; h0 += HEADS) {
    const int heads = min(HEADS, a.nh - h0), h = h0 + warp;
    const bool mine = warp < heads;
    const real top = mine ? row_of(a.largest, i, a.nh)[h] : real(0), inverse = mine ? row_of(a.inverse, i, a.nh)[h] : real(0);
    // Scores and gradients of the probabilities, and the sum of both over the softmax.
    real inner = 0;
    for (int first = begin; first < end; first += TILE) {
      const int count = min(TILE, end - first);
      __syncthreads();
      stage_rows(row, a.j, first, count);
      __syncthreads();
      row_products<2 * HEADS>(slabs + warp * TILE * ROW, vectors + warp * 2 * HEADS * 32, row, a.g1, a.n1, heads, query + h0 * a.n1,
                              given + h0 * a.n1);
      __syncthreads();
      if (mine && lane < count) {
        const real w = a.w[first + lane], score = whole_product(slabs, warp, lane), dp = whole_product(slabs, HEADS + warp, lane);
        real* kept = row_of(a.room, first + lane, 2 * a.nh) + 2 * h;
        kept[0] = score;
        kept[1] = dp;
        inner += DeviceMath::exp(math::logit(score, w, w, a.shift) - top) * inverse * dp * w;
      }
    }
    inner = warp_sum(inner);
    for (int c0 = 0; c0 < a.n1; c0 += 32 * WARPS) {
      const int c = c0 + threadIdx.x;
      real dq[HEADS] = {};
      for (int first = begin; first < end; first += TILE) {
        const int count = min(TILE, end - first);
        __syncthreads();
        stage_rows(row, a.j, first, count);
        real ds = 0, p = 0, dc1 = 0, dc2 = 0;
        if (mine && lane < count) {
          real* kept = row_of(a.room, first + lane, 2 * a.nh) + 2 * h;
          const real w = a.w[first + lane];
          p = DeviceMath::exp(math::logit(kept[0], w, w, a.shift) - top) * inverse;
          math::logit_backward(false, kept[1], p, inner, kept[0], w, w, a.shift, ds, dc1, dc2);
          p *= w;
          if (c0 + 32 * WARPS >= a.n1) kept[0] = ds, kept[1] = p;  // the last time that this is made
        }
        dscore[TILE * warp + lane] = ds;
        weight[TILE * warp + lane] = dc1 + dc2;
        __syncthreads();
        if (c0 == 0 && threadIdx.x < count) {
          real acc = 0;
          for (int k = 0; k < HEADS; ++k) acc += weight[TILE * k + lane];
          a.dw[first + lane] += acc;
        }
        if (c >= a.n1) continue;
#pragma unroll 2
        for (int e = 0; e < count; e += 4) {
          int j[4];
          real v[4];
          load4(j, row + e);
#pragma unroll
          for (int s = 0; s < 4; ++s) v[s] = row_of(a.g1, j[s], a.n1)[c];
#pragma unroll
          for (int k = 0; k < HEADS; ++k) {
            real d[4];
            load4(d, dscore + TILE * k + e);
            dq[k] += d[0] * v[0] + d[1] * v[1] + d[2] * v[2] + d[3] * v[3];
          }
        }
      }
      if (c < a.n1)
#pragma unroll
        for (int k = 0; k < HEADS; ++k)
          if (k < heads) row_of(a.dtq, i, a.nh * a.n1)[(h0 + k) * a.n1 + c] = dq[k];
    }
  }
}
