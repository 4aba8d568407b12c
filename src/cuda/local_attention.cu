// Attention of a centre over the g1 of its neighbours (theory 8.10, 12.11, S7): keys folded with queries
// before (tq), values with the head map after (o). One block per centre; scores stay in shared memory.
#include "cuda/block.cuh"
#include "math/attention.hpp"

using namespace dpa2;

namespace {

/// S, P (nh, n) = scores and probabilities of the edges first..first+n; padded slots have the logit 0 where w is 1 + shift.
__device__ void probabilities(int n, int n1, int nh, real* S, real* P, const real* tq, const real* g1, const int* j, const real* w,
                              real shift, real npad) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  for (int e = warp; e < n; e += warps) {
    const real* row = row_of(g1, j[e], n1);
    for (int h = 0; h < nh; ++h) {
      real acc = 0;
      for (int c = lane; c < n1; c += 32) acc += tq[h * n1 + c] * row[c];
      acc = warp_sum(acc);
      if (lane == 0) {
        S[h * n + e] = acc;
        P[h * n + e] = math::logit(acc, w[e], w[e], shift);
      }
    }
  }
  __syncthreads();
  for (int h = warp; h < nh; h += warps) {
    real* p = P + h * n;
    real top = math::least_logit(npad, shift);
    for (int e = lane; e < n; e += 32) top = p[e] > top ? p[e] : top;
    top = part_max(top, 32);
    real total = 0;
    for (int e = lane; e < n; e += 32) {
      p[e] = DeviceMath::exp(p[e] - top);
      total += p[e];
    }
    total = warp_sum(total) + npad * DeviceMath::exp(-shift - top);
    for (int e = lane; e < n; e += 32) p[e] /= total;
  }
  __syncthreads();
}

}  // namespace

// o (n, nh * n1) = sum_e P_he w_e g1_j; tq (n, nh * n1); attention_shift and nsel where smooth, 0 and 0 else (and w = 1). Dynamic shared memory:
// 2 nh most.
extern "C" __global__ void local_attention(int n1, int nh, real shift, int nsel, real* o, const real* tq, const real* g1, const real* w,
                                           const int* start, const int* j) {
  DYNAMIC_SHARED(real, S);
  const int i = blockIdx.x, first = start[i], n = start[i + 1] - first;
  real* P = S + nh * n;
  probabilities(n, n1, nh, S, P, row_of(tq, i, nh * n1), g1, j + first, w + first, shift, nsel > n ? real(nsel - n) : real(0));
  for (int t = threadIdx.x; t < nh * n1; t += blockDim.x) {
    const int h = t / n1, c = t % n1;
    real acc = 0;
    for (int e = 0; e < n; ++e) acc += P[h * n + e] * w[first + e] * row_of(g1, j[first + e], n1)[c];
    row_of(o, i, nh * n1)[t] = acc;
  }
}

// dtq (n, nh * n1) =, dg1_edge (nedge, n1) += (rows of edges), dw (nedge) +=, given dout (n, nh * n1), the gradient of o. Dynamic shared memory:
// 3 nh most.
extern "C" __global__ void local_attention_backward(int n1, int nh, real shift, int nsel, real* dtq, real* dg1_edge, real* dw,
                                                    const real* dout, const real* tq, const real* g1, const real* w, const int* start,
                                                    const int* j) {
  DYNAMIC_SHARED(real, S);
  const int i = blockIdx.x, first = start[i], n = start[i + 1] - first;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  real* P = S + nh * n;
  real* dP = P + nh * n;
  const real* query = row_of(tq, i, nh * n1);
  const real* given = row_of(dout, i, nh * n1);
  probabilities(n, n1, nh, S, P, query, g1, j + first, w + first, shift, nsel > n ? real(nsel - n) : real(0));
  for (int e = warp; e < n; e += warps) {
    const real* row = row_of(g1, j[first + e], n1);
    for (int h = 0; h < nh; ++h) {
      real acc = 0;
      for (int c = lane; c < n1; c += 32) acc += given[h * n1 + c] * row[c];
      acc = warp_sum(acc);
      if (lane == 0) dP[h * n + e] = acc;  // of P w
    }
  }
  __syncthreads();
  // dP becomes the gradient of the scores; S that of the edge's weight.
  for (int h = warp; h < nh; h += warps) {
    real inner = 0;
    for (int e = lane; e < n; e += 32) inner += P[h * n + e] * dP[h * n + e] * w[first + e];
    inner = warp_sum(inner);
    for (int e = lane; e < n; e += 32) {
      const int at = h * n + e;
      real ds, d1, d2;  // of w as it multiplies the value, and the score
      math::logit_backward(false, dP[at], P[at], inner, S[at], w[first + e], w[first + e], shift, ds, d1, d2);
      S[at] = d1 + d2;
      dP[at] = ds;
    }
  }
  __syncthreads();
  for (int e = threadIdx.x; e < n; e += blockDim.x) {
    real acc = 0;
    for (int h = 0; h < nh; ++h) acc += S[h * n + e];
    dw[first + e] += acc;
  }
  for (int t = threadIdx.x; t < nh * n1; t += blockDim.x) {
    const int h = t / n1, c = t % n1;
    real acc = 0;
    for (int e = 0; e < n; ++e) acc += dP[h * n + e] * row_of(g1, j[first + e], n1)[c];
    row_of(dtq, i, nh * n1)[t] = acc;
  }
  for (int c = threadIdx.x; c < n1; c += blockDim.x)
    for (int e = 0; e < n; ++e) {
      real acc = 0;
      for (int h = 0; h < nh; ++h) acc += dP[h * n + e] * query[h * n1 + c] + P[h * n + e] * w[first + e] * given[h * n1 + c];
      row_of(dg1_edge, first + e, n1)[c] += acc;
    }
}
