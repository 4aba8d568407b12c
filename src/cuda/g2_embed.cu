// The entry of the repformer: per edge the pair channel g2, the vector h2 and the weight w (theory 8, 12.12).
#include "cuda/activation.cuh"
#include "cuda/block.cuh"

using namespace dpa2;

// g2 (nedge, n2) =, h2 (nedge, 3) =, x (nedge) =, w (nedge) = sw, or 1 unless smooth; R (nedge, 4), sw (nedge) of the block; with direct != 0
// (1/rcut) x = r/rcut and h2 = d/rcut; edge: numbers in the master list of d and r. One thread per channel.
extern "C" __global__ void g2_embed(int nedge, int n2, int smooth, real direct, real* g2, real* h2, real* x, real* w, const real* R,
                                    const real* sw, const double* d, const double* r, const int* edge, const real* weight,
                                    const real* bias) {
  const long long t = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (t >= static_cast<long long>(nedge) * n2) return;
  const int e = static_cast<int>(t / n2), c = static_cast<int>(t % n2), at = edge[e];
  const real value = direct != real(0) ? real(r[at]) * direct : R[4LL * e];
  real slope;
  activate(value * weight[c] + bias[c], g2[t], slope);
  if (c != 0) return;
  x[e] = value;
  w[e] = smooth != 0 ? sw[e] : real(1);
  for (int k = 0; k < 3; ++k) h2[3LL * e + k] = direct != real(0) ? real(d[3LL * at + k]) * direct : R[4LL * e + 1 + k];
}

// dR (nedge, 4) =: gradients of x and h2, given dg2 (nedge, n2) and dh2 (nedge, 3). One warp per edge.
extern "C" __global__ void g2_embed_backward(int nedge, int n2, real* dR, const real* dg2, const real* dh2, const real* x,
                                             const real* weight, const real* bias) {
  const int e = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (e >= nedge) return;
  real acc = 0;
  for (int c = lane; c < n2; c += 32) {
    real value, slope;
    activate(x[e] * weight[c] + bias[c], value, slope);
    acc += row_of(dg2, e, n2)[c] * slope * weight[c];
  }
  acc = warp_sum(acc);
  if (lane < 4) dR[4LL * e + lane] = lane == 0 ? acc : dh2[3LL * e + lane - 1];
}
