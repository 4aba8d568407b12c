// The product of the two atoms' features as an update of the pair channel (theory 8.3, 12.7). One block per centre.
#include "cuda/block.cuh"

using namespace dpa2;

namespace {

constexpr int TILE = 16;  // edges whose products are in shared memory together

}  // namespace

// U (nedge, n2) = (w_e g1_i * g1_j) W; W (n1, n2). Dynamic shared memory: n1 TILE (16).
extern "C" __global__ void g1g1(int n1, int n2, real* U, const real* g1, const real* W, const real* w, const int* start, const int* j) {
  DYNAMIC_SHARED(real, product);
  const int i = blockIdx.x;
  for (int first = start[i]; first < start[i + 1]; first += TILE) {
    const int count = min(TILE, start[i + 1] - first);
    __syncthreads();
    for (int t = threadIdx.x; t < count * n1; t += blockDim.x) {
      const int e = t / n1, c = t % n1;
      product[c * TILE + e] = w[first + e] * row_of(g1, i, n1)[c] * row_of(g1, j[first + e], n1)[c];
    }
    __syncthreads();
    block_product(count, n2, n1, product, TILE, 1, W, n2, 1, [&](int e, int k, real v) { row_of(U, first + e, n2)[k] = v; });
  }
}

// dg1 (n, n1) += (the centre's share), dg1_edge (nedge, n1) += (the neighbour's, rows of edges), dw (nedge) +=, given dU (nedge, n2); Wt (n2, n1).
// Dynamic shared memory: (n1 + n2) TILE.
extern "C" __global__ void g1g1_backward(int n1, int n2, real* dg1, real* dg1_edge, real* dw, const real* dU, const real* g1,
                                         const real* Wt, const real* w, const int* start, const int* j) {
  DYNAMIC_SHARED(real, y);      // (TILE, n1)
  real* given = y + TILE * n1;  // (n2, TILE)
  const int i = blockIdx.x, lane = threadIdx.x % 32;
  const real* own = row_of(g1, i, n1);
  for (int first = start[i]; first < start[i + 1]; first += TILE) {
    const int count = min(TILE, start[i + 1] - first);
    __syncthreads();
    for (int t = threadIdx.x; t < count * n2; t += blockDim.x) given[t % n2 * TILE + t / n2] = row_of(dU, first + t / n2, n2)[t % n2];
    __syncthreads();
    block_product(count, n1, n2, given, TILE, 1, Wt, n1, 1, [&](int e, int c, real v) { y[e * n1 + c] = v; });
    __syncthreads();
    for (int c = threadIdx.x; c < n1; c += blockDim.x) {
      real acc = 0;
      for (int e = 0; e < count; ++e) acc += y[e * n1 + c] * w[first + e] * row_of(g1, j[first + e], n1)[c];
      row_of(dg1, i, n1)[c] += acc;
    }
    for (int e = threadIdx.x / 32; e < count; e += blockDim.x / 32) {
      const real* other = row_of(g1, j[first + e], n1);
      real* out = row_of(dg1_edge, first + e, n1);
      real acc = 0;
      for (int c = lane; c < n1; c += 32) {
        const real part = y[e * n1 + c] * own[c];
        acc += part * other[c];
        out[c] += part * w[first + e];
      }
      acc = warp_sum(acc);
      if (lane == 0) dw[first + e] += acc;
    }
  }
}
