// Attention among the edges of one centre: the update of g2 and of h2 (theory 8.5-8.7, 12.9, 12.10, S1-S3). One block per
// centre, one head after the other; scores, probabilities and the maps of g2 are in shared memory and nowhere else.
//
// Weights as folded when the model is prepared: query with key (A), value with head map, the mean over channels and 1/sqrt(3) (B). Keys are
// rows of the score matrix and queries its columns: S[k][j] = (g2_k A_h) . g2_j. HH = h2_j . h2_k, c2 = w_j w_k, c1 = HH c2.
#include "cuda/block.cuh"
#include "math/attention.hpp"

using namespace dpa2;

namespace {

constexpr int PARTS = 4;  // threads that share a query's softmax

/// The features of a centre in shared memory, by channel: g2 (n2, ld), h (3, ld), w (ld).
struct Features {
  real *g2, *h, *w;
  int n, ld;

  __device__ void load(const real* g2_rows, const real* h2_rows, const real* weights, int first, int n2) const {
    for (int t = threadIdx.x; t < n * n2; t += blockDim.x) g2[t % n2 * ld + t / n2] = row_of(g2_rows, first + t / n2, n2)[t % n2];
    for (int t = threadIdx.x; t < 3 * n; t += blockDim.x) h[t % 3 * ld + t / 3] = h2_rows[3LL * (first + t / 3) + t % 3];
    for (int t = threadIdx.x; t < n; t += blockDim.x) w[t] = weights[first + t];
  }

  __device__ __forceinline__ real product(int j, int k) const {
    return h[j] * h[k] + h[ld + j] * h[ld + k] + h[2 * ld + j] * h[2 * ld + k];
  }
};

/// The attention of query j, by PARTS neighbouring lanes, each over every PARTS-th key.
struct Softmax {
  const Features& at;
  int j, part;
  bool gate;
  real shift, npad;
  real top, total;

  __device__ __forceinline__ real logit(real s, int k, real product) const {
    const real c2 = at.w[j] * at.w[k];
    return math::logit(gate ? s * product : s, c2, c2, shift);
  }

  /// top and the normalisation, from the column j of S. All lanes of the warp take part; `there` false: without a query.
  __device__ void measure(const real* S, bool there) {
    top = math::least_logit(npad, shift);
    if (there)
      for (int k = part; k < at.n; k += PARTS) {
        const real b = logit(S[k * at.ld + j], k, at.product(j, k));
        top = b > top ? b : top;
      }
    top = part_max(top, PARTS);
    total = 0;
    if (there)
      for (int k = part; k < at.n; k += PARTS) total += DeviceMath::exp(logit(S[k * at.ld + j], k, at.product(j, k)) - top);
    total = part_sum(total, PARTS) + npad * DeviceMath::exp(-shift - top);
  }

  __device__ __forceinline__ real probability(real s, int k, real product) const {
    return DeviceMath::exp(logit(s, k, product) - top) / total;
  }
};

}  // namespace

// z (nedge, n2) = the update of g2 before LayerNorm where B is given, dh (nedge, 3) = that of h2 where h2_weight (nh) is; A, B (n2, nh * n2),
// bias (n2); attention_shift and nsel where smooth, 0 and 0 else (and w = 1). ld, vd: leading dimensions for the edges of any centre (most) and for
// n2. Dynamic shared memory: 2 n2 ld + most (2 vd + ld) + 7 ld.
extern "C" __global__ void pair_attention(int n2, int nh, int gate, real shift, int nsel, int most, int ld, int vd, real* z, real* dh,
                                          const real* g2, const real* h2, const real* w, const int* start, const real* A, const real* B,
                                          const real* bias, const real* h2_weight) {
  DYNAMIC_SHARED(real, shared);
  const int first = start[blockIdx.x], n = start[blockIdx.x + 1] - first;
  if (n == 0) return;
  real* ut = shared + n2 * ld;  // (n2, ld): keys times A_h
  real* v = ut + n2 * ld;       // (n, vd): values
  real* zs = v + most * vd;     // (n, vd)
  real* S = zs + most * vd;     // (n keys, ld queries)
  real* h = S + most * ld;      // (3, ld)
  real* sums = h + 4 * ld;      // (3, ld): dh
  const Features at{shared, h, h + 3 * ld, n, ld};
  at.load(g2, h2, w, first, n2);
  if (B != nullptr)
    for (int t = threadIdx.x; t < n * n2; t += blockDim.x) zs[t / n2 * vd + t % n2] = bias[t % n2];
  for (int t = threadIdx.x; t < 3 * ld; t += blockDim.x) sums[t] = real(0);
  __syncthreads();
  for (int head = 0; head < nh; ++head) {
    block_product(n, n2, n2, at.g2, ld, 1, A + head * n2, nh * n2, 1, [&](int k, int c, real value) { ut[c * ld + k] = value; });
    if (B != nullptr)
      block_product(n, n2, n2, at.g2, ld, 1, B + head * n2, nh * n2, 1, [&](int k, int c, real value) { v[k * vd + c] = value; });
    __syncthreads();
    block_product(n, n, n2, ut, ld, 1, at.g2, ld, 1, [&](int k, int j, real value) { S[k * ld + j] = value; });
    __syncthreads();
    for (int j0 = 0; j0 < n; j0 += blockDim.x / PARTS) {
      const int j = j0 + threadIdx.x / PARTS;
      Softmax p{at, j, static_cast<int>(threadIdx.x) % PARTS, gate != 0, shift, nsel > n ? real(nsel - n) : real(0), 0, 0};
      p.measure(S, j < n);
      if (j < n)
        for (int k = p.part; k < n; k += PARTS) {
          const real product = at.product(j, k);
          S[k * ld + j] = p.probability(S[k * ld + j], k, product) * product * at.w[j] * at.w[k];
        }
    }
    __syncthreads();
    if (B != nullptr) block_product(n, n2, n, S, ld, 1, v, vd, 1, [&](int j, int c, real value) { zs[j * vd + c] += value; });
    if (h2_weight != nullptr)
      for (int t = threadIdx.x; t < 3 * n; t += blockDim.x) {
        const int x = t / n, j = t % n;
        real acc = 0;
        for (int k = 0; k < n; ++k) acc += S[k * ld + j] * at.h[x * ld + k];
        sums[x * ld + j] += h2_weight[head] * acc;
      }
    __syncthreads();
  }
  if (B != nullptr)
    for (int t = threadIdx.x; t < n * n2; t += blockDim.x) row_of(z, first + t / n2, n2)[t % n2] = zs[t / n2 * vd + t % n2];
  if (h2_weight != nullptr)
    for (int t = threadIdx.x; t < 3 * n; t += blockDim.x) dh[3LL * (first + t / 3) + t % 3] = sums[t % 3 * ld + t / 3];
}

// dg2 (nedge, n2) +=, dh2 (nedge, 3) +=, dw (nedge) +=, given dz (nedge, n2) where B is given and ddh (nedge, 3) where h2_weight is; At, Bt
// (nh * n2, n2) are the transposed A, B. Dynamic shared memory: 4 n2 ld + most (vd + 4 ld) + 11 ld.
extern "C" __global__ void pair_attention_backward(int n2, int nh, int gate, real shift, int nsel, int most, int ld, int vd, real* dg2,
                                                   real* dh2, real* dw, const real* dz, const real* ddh, const real* g2, const real* h2,
                                                   const real* w, const int* start, const real* A, const real* At, const real* B,
                                                   const real* Bt, const real* h2_weight) {
  DYNAMIC_SHARED(real, shared);
  const int first = start[blockIdx.x], n = start[blockIdx.x + 1] - first;
  if (n == 0) return;
  real* ut = shared + n2 * ld;  // (n2, ld): keys times A_h
  real* vt = ut + n2 * ld;      // (n2, ld): values, then gradients of values and of ut
  real* dzt = vt + n2 * ld;     // (n2, ld)
  real* S = dzt + n2 * ld;      // (n keys, ld queries): scores, then the gradient of HH
  real* P = S + most * ld;      // probabilities times c1
  real* D = P + most * ld;      // the gradient of that, then of the scores
  real* W = D + most * ld;      // the gradient of w_j w_k
  real* dg = W + most * ld;     // (n, vd): dg2
  real* h = dg + most * vd;     // (3, ld), and w
  real* dhs = h + 4 * ld;       // (3, ld), and dw
  real* up = dhs + 4 * ld;      // (3, ld): ddh
  const Features at{shared, h, h + 3 * ld, n, ld};
  at.load(g2, h2, w, first, n2);
  for (int t = threadIdx.x; t < n * n2; t += blockDim.x) {
    if (B != nullptr) dzt[t % n2 * ld + t / n2] = row_of(dz, first + t / n2, n2)[t % n2];
    dg[t / n2 * vd + t % n2] = real(0);
  }
  for (int t = threadIdx.x; t < 4 * ld; t += blockDim.x) dhs[t] = real(0);
  if (h2_weight != nullptr)
    for (int t = threadIdx.x; t < 3 * n; t += blockDim.x) up[t % 3 * ld + t / 3] = ddh[3LL * (first + t / 3) + t % 3];
  __syncthreads();
  for (int head = 0; head < nh; ++head) {
    const real weight = h2_weight != nullptr ? h2_weight[head] : real(0);
    block_product(n, n2, n2, at.g2, ld, 1, A + head * n2, nh * n2, 1, [&](int k, int c, real value) { ut[c * ld + k] = value; });
    if (B != nullptr)
      block_product(n, n2, n2, at.g2, ld, 1, B + head * n2, nh * n2, 1, [&](int k, int c, real value) { vt[c * ld + k] = value; });
    __syncthreads();
    block_product(n, n, n2, ut, ld, 1, at.g2, ld, 1, [&](int k, int j, real value) { S[k * ld + j] = value; });
    block_product(n, n, B != nullptr ? n2 : 0, vt, ld, 1, dzt, ld, 1, [&](int k, int j, real value) {
      if (h2_weight != nullptr) value += weight * (up[j] * at.h[k] + up[ld + j] * at.h[ld + k] + up[2 * ld + j] * at.h[2 * ld + k]);
      D[k * ld + j] = value;
    });
    __syncthreads();
    for (int j0 = 0; j0 < n; j0 += blockDim.x / PARTS) {
      const int j = j0 + threadIdx.x / PARTS;
      Softmax p{at, j, static_cast<int>(threadIdx.x) % PARTS, gate != 0, shift, nsel > n ? real(nsel - n) : real(0), 0, 0};
      p.measure(S, j < n);
      real inner = 0;
      if (j < n)
        for (int k = p.part; k < n; k += PARTS) {
          const real product = at.product(j, k), probability = p.probability(S[k * ld + j], k, product);
          P[k * ld + j] = probability;
          inner += probability * product * at.w[j] * at.w[k] * D[k * ld + j];
        }
      inner = part_sum(inner, PARTS);
      real own[4] = {};  // what query j itself gets: of h and of w
      if (j < n)
        for (int k = p.part; k < n; k += PARTS) {
          const int pair = k * ld + j;
          const real product = at.product(j, k), c2 = at.w[j] * at.w[k], c1 = product * c2;
          const real s = S[pair], probability = P[pair], given = D[pair];
          real ds, dc1, dc2;
          if (gate != 0) {  // two calls: what the compiler fuses then does not hang on the branch
            math::logit_backward(true, given, probability, inner, s, c1, c2, shift, ds, dc1, dc2);
            D[pair] = ds;
          } else {
            math::logit_backward(false, given, probability, inner, s, c1, c2, shift, ds, dc1, dc2);
            D[pair] = ds;
          }
          const real dproduct = dc1 * c2, dweights = dc1 * product + dc2;
          S[pair] = dproduct;
          W[pair] = dweights;
          P[pair] = probability * c1;
          for (int x = 0; x < 3; ++x) own[x] += dproduct * at.h[x * ld + k];
          own[3] += dweights * at.w[k];
        }
      for (int x = 0; x < 4; ++x) own[x] = part_sum(own[x], PARTS);
      if (j < n && p.part == 0)
        for (int x = 0; x < 4; ++x) dhs[x * ld + j] += own[x];
    }
    __syncthreads();
    if (B != nullptr) block_product(n, n2, n, P, 1, ld, dzt, 1, ld, [&](int k, int c, real value) { vt[c * ld + k] = value; });
    block_product(n, n2, n, D, ld, 1, ut, 1, ld, [&](int j, int c, real value) { dg[j * vd + c] += value; });
    // What key k gets: x = 0..2 of h, 3 of w.
    for (int t = threadIdx.x; t < 4 * n; t += blockDim.x) {
      const int x = t / n, k = t % n;
      real acc = 0;
      for (int j = 0; j < n; ++j) {
        acc += x < 3 ? S[k * ld + j] * at.h[x * ld + j] : W[k * ld + j] * at.w[j];
        if (h2_weight != nullptr && x < 3) acc += weight * P[k * ld + j] * up[x * ld + j];
      }
      dhs[x * ld + k] += acc;
    }
    __syncthreads();
    if (B != nullptr)
      block_product(n, n2, n2, vt, ld, 1, Bt + head * n2 * n2, n2, 1, [&](int k, int c, real value) { dg[k * vd + c] += value; });
    __syncthreads();
    block_product(n, n2, n, D, 1, ld, at.g2, 1, ld, [&](int k, int c, real value) { vt[c * ld + k] = value; });
    __syncthreads();
    block_product(n, n2, n2, vt, ld, 1, At + head * n2 * n2, n2, 1, [&](int k, int c, real value) { dg[k * vd + c] += value; });
    __syncthreads();
  }
  for (int t = threadIdx.x; t < n * n2; t += blockDim.x) row_of(dg2, first + t / n2, n2)[t % n2] += dg[t / n2 * vd + t % n2];
  for (int t = threadIdx.x; t < 3 * n; t += blockDim.x) dh2[3LL * (first + t / 3) + t % 3] += dhs[t % 3 * ld + t / 3];
  for (int t = threadIdx.x; t < n; t += blockDim.x) dw[first + t] += dhs[3 * ld + t];
}
