// The convolution: what the neighbours' g1 says through the pair channel (theory 8.4, 12.6). One block per centre.
// With g1_out_conv the projection P acts on g2, edge by edge, and is done here; else on g1, atom by atom, and comes as rows.
#include "cuda/block.cuh"

using namespace dpa2;

namespace {

constexpr int EDGES = 8;  // that a thread projects together
constexpr int TILE = 32;  // edges whose features are in shared memory together

/// g2 of a tile of edges, channel by channel: t (n2, TILE); edges beyond the last are zero.
__device__ void load_tile(real* t, const real* g2, int first, int count, int n2) {
  __syncthreads();
  for (int k = threadIdx.x; k < TILE * n2; k += blockDim.x) {
    const int e = k / n2, c = k % n2;
    t[c * TILE + e] = e < count ? row_of(g2, first + e, n2)[c] : real(0);
  }
  __syncthreads();
}

/// y = column c of P times EDGES edges of the tile.
__device__ __forceinline__ void project(real (&y)[EDGES], const real* tile, const real* P, int n2, int n1, int c) {
  for (int e = 0; e < EDGES; ++e) y[e] = real(0);
  for (int k = 0; k < n2; ++k) {
    const real p = P[k * n1 + c];
#pragma unroll
    for (int e = 0; e < EDGES; ++e) y[e] += p * tile[k * TILE + e];
  }
}

}  // namespace

// out (n, n1) = kappa_n sum_e w_e (g2_e P) * g1_j; P (n2, n1). Dynamic shared memory: n2 TILE (32).
extern "C" __global__ void conv(int n1, int n2, real* out, const real* g1, const real* g2, const real* P, const real* w,
                                const real* kappa_n, const int* start, const int* j) {
  DYNAMIC_SHARED(real, tile);
  const int i = blockIdx.x, begin = start[i], end = start[i + 1];
  // Channels in rounds of the block, so that all threads meet at the barriers.
  for (int c0 = 0; c0 < n1; c0 += blockDim.x) {
    const int c = c0 + threadIdx.x;
    real acc = 0;
    for (int first = begin; first < end; first += TILE) {
      const int count = min(TILE, end - first);
      load_tile(tile, g2, first, count, n2);
      if (c < n1)
        for (int e0 = 0; e0 < count; e0 += EDGES) {
          real y[EDGES];
          project(y, tile + e0, P, n2, n1, c);
          for (int e = 0; e < EDGES && e0 + e < count; ++e) {
            const int at = first + e0 + e;
            acc += w[at] * y[e] * row_of(g1, j[at], n1)[c];
          }
        }
    }
    if (c < n1) row_of(out, i, n1)[c] = acc * kappa_n[i];
  }
}

// dg1_edge (nedge, n1) = (rows of edges), dg2 (nedge, n2) +=, dw (nedge) +=, given dout (n, n1); Pt (n1, n2). Dynamic shared memory:
// (2 n2 + n1) TILE.
extern "C" __global__ void conv_backward(int n1, int n2, real* dg1_edge, real* dg2, real* dw, const real* dout, const real* g1,
                                         const real* g2, const real* P, const real* Pt, const real* w, const real* kappa_n,
                                         const int* start, const int* j) {
  DYNAMIC_SHARED(real, tile);
  real* q = tile + n2 * TILE;  // (n2, TILE): gradient of g2 without the weight
  real* gb = q + n2 * TILE;    // (n1, TILE): dout * g1_j
  const int i = blockIdx.x, begin = start[i], end = start[i + 1];
  const real kappa = kappa_n[i];
  const real* g = row_of(dout, i, n1);
  for (int first = begin; first < end; first += TILE) {
    const int count = min(TILE, end - first);
    load_tile(tile, g2, first, count, n2);
    for (int c = threadIdx.x; c < n1; c += blockDim.x)
      for (int e0 = 0; e0 < count; e0 += EDGES) {
        real y[EDGES];
        project(y, tile + e0, P, n2, n1, c);
        for (int e = 0; e < EDGES && e0 + e < count; ++e) {
          const int at = first + e0 + e;
          gb[c * TILE + e0 + e] = g[c] * row_of(g1, j[at], n1)[c];
          row_of(dg1_edge, at, n1)[c] = kappa * w[at] * g[c] * y[e];
        }
      }
    __syncthreads();
    block_product(count, n2, n1, gb, TILE, 1, Pt, n2, 1, [&](int e, int k, real v) {
      q[k * TILE + e] = v;
      row_of(dg2, first + e, n2)[k] += kappa * w[first + e] * v;
    });
    __syncthreads();
    for (int e = threadIdx.x; e < count; e += blockDim.x) {
      real acc = 0;
      for (int k = 0; k < n2; ++k) acc += tile[k * TILE + e] * q[k * TILE + e];
      dw[first + e] += kappa * acc;
    }
  }
}

// out (n, out_width) columns 0..n2 = kappa_n sum_e w_e g2_e * node_j; node (n, n2) = g1 P.
extern "C" __global__ void conv_node(int n2, int out_width, real* out, const real* g2, const real* node, const real* w, const real* kappa_n,
                                     const int* start, const int* j) {
  const int i = blockIdx.x;
  for (int c = threadIdx.x; c < n2; c += blockDim.x) {
    real acc = 0;
    for (int e = start[i]; e < start[i + 1]; ++e) acc += w[e] * row_of(g2, e, n2)[c] * row_of(node, j[e], n2)[c];
    row_of(out, i, out_width)[c] = acc * kappa_n[i];
  }
}

// dnode_edge (nedge, n2) = (rows of edges), dg2 (nedge, n2) +=, dw (nedge) +=, given dout (n, out_width). One warp per edge of the centre.
extern "C" __global__ void conv_node_backward(int n2, int out_width, real* dnode_edge, real* dg2, real* dw, const real* dout,
                                              const real* g2, const real* node, const real* w, const real* kappa_n, const int* start,
                                              const int* j) {
  const int i = blockIdx.x, lane = threadIdx.x % 32;
  const real kappa = kappa_n[i];
  const real* g = row_of(dout, i, out_width);
  for (int e = start[i] + threadIdx.x / 32; e < start[i + 1]; e += blockDim.x / 32) {
    const real* a = row_of(g2, e, n2);
    const real* b = row_of(node, j[e], n2);
    real acc = 0;
    for (int c = lane; c < n2; c += 32) {
      acc += g[c] * a[c] * b[c];
      row_of(dg2, e, n2)[c] += kappa * w[e] * g[c] * b[c];
      row_of(dnode_edge, e, n2)[c] = kappa * w[e] * g[c] * a[c];
    }
    acc = warp_sum(acc);
    if (lane == 0) dw[e] += kappa * acc;
  }
}
