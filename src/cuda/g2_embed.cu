// The entry of the repformer: per edge the pair channel g2, the vector h2 and the weight w (theory 8, 12.12).
//
// The row of an edge is made in double, whatever the precision of the model: digits lost here are lost for all layers, and a LayerNorm of
// few channels makes the loss larger.
#include "cuda/activation.cuh"
#include "cuda/block.cuh"
#include "cuda/env_mat.cuh"
#include "cuda/g2_embed.hpp"

using namespace dpa2;

namespace {

constexpr int THREADS = cuda::g2_embed_threads, EDGES = cuda::g2_embed_edges;
// Edges of a warp in the backward, and of these so many at once as there are registers for.
constexpr int EACH = cuda::g2_embed_backward_edges / (THREADS / 32), TOGETHER = sizeof(real) == 4 ? 8 : 1;
static_assert(EACH <= 32 && EACH % TOGETHER == 0, "a lane has an edge in the end");

/// Number e of the repformer's list in the master list.
__device__ __forceinline__ int in_master(const cuda::RepformerEdgesArgs& edges, int e) {
  const int i = edges.centre[e];
  return edges.master_start[i] + (e - edges.start[i]);
}

/// An edge, its row and its switch.
struct Row {
  EdgeOf<double> edge;
  int type;
  real R[4], sw;

  template <class Args>
  __device__ __forceinline__ Row(const Args& a, int e, int at) : edge(a.edges.d, a.edges.r, at), type(a.edges.types[a.edges.centre[e]]) {
    environment(a.statistics, edge, type, R, sw);
  }
  /// What g2 is a function of. `direct`: 1/rcut where that is the length, else 0.
  __device__ __forceinline__ real scalar(real direct) const { return direct != real(0) ? real(edge.r) * direct : R[0]; }
};

}  // namespace

extern "C" __global__ void __launch_bounds__(cuda::g2_embed_threads) g2_embed(const cuda::G2EmbedArgs<real> a) {
  __shared__ real x[EDGES];
  const int n2 = a.n2, first = blockIdx.x * EDGES, count = min(EDGES, a.edges.start[a.edges.centres] - first);
  if (count <= 0) return;
  if (threadIdx.x < count) {
    const int e = first + threadIdx.x;
    const int at = in_master(a.edges, e);
    const Row row(a, e, at);
    x[threadIdx.x] = row.scalar(a.direct);
    a.w[e] = a.edges.smooth != 0 ? row.sw : real(1);
    real* const h2 = row_of(a.h2, e, 3);
    for (int k = 0; k < 3; ++k) h2[k] = a.direct != real(0) ? real(a.edges.d[3LL * at + k]) * a.direct : row.R[1 + k];
  }
  __syncthreads();
  real* const g2 = row_of(a.g2, first, n2);
  const int edges = THREADS / n2, channels = THREADS % n2;  // from a thread's number to its next one
  int e = threadIdx.x / n2, c = threadIdx.x % n2;
  real weight = a.weight[c], bias = a.bias[c];
  for (int t = threadIdx.x; e < count; t += THREADS) {
    real slope;
    activate(x[e] * weight + bias, g2[t], slope);
    e += edges;
    if (channels == 0) continue;
    c += channels;
    if (c >= n2) {
      c -= n2;
      ++e;
    }
    weight = a.weight[c], bias = a.bias[c];
  }
}

// A warp has some edges, a few at a time: all its lanes for their channels, and in the end a lane for each edge.
extern "C" __global__ void __launch_bounds__(cuda::g2_embed_threads) g2_embed_backward(const cuda::G2EmbedBackwardArgs<real> a) {
  const int n2 = a.n2, lane = threadIdx.x % 32;
  const int first = blockIdx.x * cuda::g2_embed_backward_edges + threadIdx.x / 32 * EACH;
  const int count = min(EACH, a.edges.start[a.edges.centres] - first);
  if (count <= 0) return;
  const int e = first + min(lane, count - 1), at = in_master(a.edges, e);
  const Row row(a, e, at);
  const real x = row.scalar(a.direct);
  real dR[4] = {};
#pragma unroll 1
  for (int begin = 0; begin < count; begin += TOGETHER) {
    real own[TOGETHER], sum[TOGETHER] = {};
#pragma unroll
    for (int k = 0; k < TOGETHER; ++k) own[k] = __shfl_sync(FULL_MASK, x, begin + k);
    const real* from = row_of(a.dg2, first + begin, n2);
    for (int c = lane; c < n2; c += 32) {
      const real weight = a.weight[c], bias = a.bias[c];
#pragma unroll
      for (int k = 0; k < TOGETHER; ++k) {
        if (begin + k >= count) break;
        real value, slope;
        activate(own[k] * weight + bias, value, slope);
        sum[k] += from[k * n2 + c] * slope * weight;
      }
    }
    real whole;
    if constexpr (TOGETHER == 1) {
      whole = warp_sum(sum[0]);
    } else {
      scatter_sums<TOGETHER>(sum);  // lane l is left with edge l / 4
      for (int step = 1; step < 4; step *= 2) sum[0] += __shfl_xor_sync(FULL_MASK, sum[0], step);
      whole = __shfl_sync(FULL_MASK, sum[0], 4 * (lane % TOGETHER));
    }
    if (lane / TOGETHER == begin / TOGETHER) dR[0] = whole;
  }
  if (lane >= count) return;
  for (int k = 0; k < 3; ++k) dR[1 + k] = a.dh2[3LL * e + k];
  real g[3] = {};
  if (a.direct != real(0)) {
    const real r = real(row.edge.r), along = r > real(0) ? dR[0] / r : real(0);
    for (int k = 0; k < 3; ++k) g[k] = (dR[1 + k] + along * real(row.edge.d[k])) * a.direct;
    for (int k = 0; k < 4; ++k) dR[k] = real(0);
  }
  environment_backward(a.statistics, row.edge, row.type, dR, a.edges.smooth != 0 ? a.dw[e] : real(0), g);
  for (int k = 0; k < 3; ++k) a.gamma[3LL * at + k] += g[k];
}
