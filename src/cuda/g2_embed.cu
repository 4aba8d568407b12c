// The entry of the repformer: per edge the pair channel g2, the vector h2 and the weight w (theory 8, 12.12).
#include "cuda/activation.cuh"
#include "cuda/block.cuh"
#include "cuda/env_mat.cuh"
#include "cuda/g2_embed.hpp"

using namespace dpa2;

namespace {

constexpr int THREADS = cuda::g2_embed_threads, EDGES = cuda::g2_embed_edges;

/// Number e of the repformer's list in the master list.
__device__ __forceinline__ int in_master(const cuda::RepformerEdgesArgs& edges, int e) {
  const int i = edges.centre[e];
  return edges.master_start[i] + (e - edges.start[i]);
}

/// The scalar that g2 is a function of.
template <class Args>
__device__ __forceinline__ real scalar(const Args& a, const Edge& edge, const real (&R)[4]) {
  return a.direct != real(0) ? edge.r * a.direct : R[0];
}

}  // namespace

extern "C" __global__ void __launch_bounds__(cuda::g2_embed_threads) g2_embed(const cuda::G2EmbedArgs<real> a) {
  __shared__ real x[EDGES];
  const int n2 = a.n2, first = blockIdx.x * EDGES, count = min(EDGES, a.edges.start[a.edges.centres] - first);
  if (count <= 0) return;
  if (threadIdx.x < count) {
    const int e = first + threadIdx.x;
    const Edge edge(a.edges.d, a.edges.r, in_master(a.edges, e));
    real R[4], sw;
    environment(a.statistics, edge, a.edges.types[a.edges.centre[e]], R, sw);
    x[threadIdx.x] = scalar(a, edge, R);
    a.w[e] = a.edges.smooth != 0 ? sw : real(1);
    for (int k = 0; k < 3; ++k) a.h2[3LL * e + k] = a.direct != real(0) ? edge.d[k] * a.direct : R[1 + k];
  }
  __syncthreads();
  real* const g2 = row_of(a.g2, first, n2);
  int e = threadIdx.x / n2, c = threadIdx.x % n2;
  for (int t = threadIdx.x; e < count; t += THREADS) {
    real slope;
    activate(x[e] * a.weight[c] + a.bias[c], g2[t], slope);
    e += THREADS / n2;
    c += THREADS % n2;
    if (c >= n2) {
      c -= n2;
      ++e;
    }
  }
}

// A warp has a few edges: all its lanes for the channels of one after the other, and then a lane for each.
extern "C" __global__ void __launch_bounds__(cuda::g2_embed_threads) g2_embed_backward(const cuda::G2EmbedBackwardArgs<real> a) {
  constexpr int EACH = EDGES / (THREADS / 32);
  const int n2 = a.n2, lane = threadIdx.x % 32, first = blockIdx.x * EDGES + threadIdx.x / 32 * EACH;
  const int count = min(EACH, a.edges.start[a.edges.centres] - first);
  if (count <= 0) return;
  const int e = first + min(lane, count - 1), at = in_master(a.edges, e), type = a.edges.types[a.edges.centre[e]];
  const Edge edge(a.edges.d, a.edges.r, at);
  real R[4], sw, dR[4] = {};
  environment(a.statistics, edge, type, R, sw);
  const real x = scalar(a, edge, R);
  for (int k = 0; k < count; ++k) {
    const real own = __shfl_sync(FULL_MASK, x, k);
    const real* dg2 = row_of(a.dg2, first + k, n2);
    real sum = 0;
    for (int c = lane; c < n2; c += 32) {
      real value, slope;
      activate(own * a.weight[c] + a.bias[c], value, slope);
      sum += dg2[c] * slope * a.weight[c];
    }
    sum = warp_sum(sum);
    if (lane == k) dR[0] = sum;
  }
  if (lane >= count) return;
  for (int k = 0; k < 3; ++k) dR[1 + k] = a.dh2[3LL * e + k];
  real g[3] = {};
  if (a.direct != real(0)) {
    const real along = edge.r > real(0) ? dR[0] / edge.r : real(0);
    for (int k = 0; k < 3; ++k) g[k] = (dR[1 + k] + along * edge.d[k]) * a.direct;
    for (int k = 0; k < 4; ++k) dR[k] = real(0);
  }
  environment_backward(a.statistics, edge, type, dR, a.edges.smooth != 0 ? a.dw[e] : real(0), g);
  for (int k = 0; k < 3; ++k) a.gamma[3LL * at + k] += g[k];
}
