// Symmetrisation of a channel X over the edges of a centre: grrg with X = g2, drrd with X = g1 of the neighbour (theory 8.8, 12.5).
// One block per centre. Row of edge e in X: index[e], or e itself where index is null.
#include "cuda/block.cuh"

using namespace dpa2;

// C (n, 3, nc) = kappa_h sum_e h2_e w_e X_e; gram (n, gram_width) columns 0..axis*nc = (1/3) sum_x C[x, a] C[x, c], or null. Dynamic shared
// memory: 3 nc.
extern "C" __global__ void symmetrization(int nc, int axis, int gram_width, real* C, real* gram, const real* X, const int* index,
                                          const real* h2, const real* w, const real* kappa_h, const int* start) {
  DYNAMIC_SHARED(real, moments);
  const int i = blockIdx.x;
  const real kappa = kappa_h[i];
  for (int c = threadIdx.x; c < nc; c += blockDim.x) {
    real acc[3] = {};
    for (int e = start[i]; e < start[i + 1]; ++e) {
      const real v = row_of(X, index != nullptr ? index[e] : e, nc)[c] * (w[e] * kappa);
      for (int x = 0; x < 3; ++x) acc[x] += v * h2[3LL * e + x];
    }
    for (int x = 0; x < 3; ++x) {
      moments[x * nc + c] = acc[x];
      C[(3LL * i + x) * nc + c] = acc[x];
    }
  }
  if (gram == nullptr) return;
  __syncthreads();
  for (int t = threadIdx.x; t < axis * nc; t += blockDim.x) {
    const int a = t / nc, c = t % nc;
    real acc = 0;
    for (int x = 0; x < 3; ++x) acc += moments[x * nc + a] * moments[x * nc + c];
    row_of(gram, i, gram_width)[t] = acc * real(1.0 / 3.0);
  }
}

// dX (nedge, nc) = or += (rows of edges, also where X has an index), dh2 (nedge, 3) +=, dw (nedge) +=, given dgram (n, gram_width)
// and the C of the forward. Dynamic shared memory: 3 nc.
extern "C" __global__ void symmetrization_backward(int nc, int axis, int gram_width, int accumulate, real* dX, real* dh2, real* dw,
                                                   const real* dgram, const real* C, const real* X, const int* index, const real* h2,
                                                   const real* w, const real* kappa_h, const int* start) {
  DYNAMIC_SHARED(real, dC);
  const int i = blockIdx.x;
  if (start[i] == start[i + 1]) return;
  const real* g = row_of(dgram, i, gram_width);
  const real* Ci = C + 3LL * i * nc;
  for (int t = threadIdx.x; t < 3 * nc; t += blockDim.x) {
    dC[t] = gram_gradient(nc, axis, t % nc, g, 1, nc, Ci + t / nc * nc) * real(1.0 / 3.0);
  }
  __syncthreads();
  const real kappa = kappa_h[i];
  const int lane = threadIdx.x % 32;
  for (int e = start[i] + threadIdx.x / 32; e < start[i + 1]; e += blockDim.x / 32) {
    const real* row = row_of(X, index != nullptr ? index[e] : e, nc);
    real* out = row_of(dX, e, nc);
    const real h[3] = {h2[3LL * e], h2[3LL * e + 1], h2[3LL * e + 2]};
    const real factor = kappa * w[e];
    real df[3] = {};
    for (int c = lane; c < nc; c += 32) {
      const real v = row[c];
      real along = 0;
      for (int x = 0; x < 3; ++x) {
        along += h[x] * dC[x * nc + c];
        df[x] += v * dC[x * nc + c];
      }
      out[c] = accumulate != 0 ? out[c] + factor * along : factor * along;
    }
    for (int x = 0; x < 3; ++x) df[x] = warp_sum(df[x]);
    if (lane == 0) {
      for (int x = 0; x < 3; ++x) dh2[3LL * e + x] += factor * df[x];
      dw[e] += kappa * (h[0] * df[0] + h[1] * df[1] + h[2] * df[2]);
    }
  }
}
