// LayerNorm of rows whose mean was removed when the model was prepared (theory 8.6, 12.8, S3). One warp per row.
#include "cuda/block.cuh"
#include "math/layer_norm.hpp"

using namespace dpa2;

namespace {

__device__ __forceinline__ real inverse_sigma(int nc, real eps, const real* z) {
  real acc = 0;
  for (int c = threadIdx.x % 32; c < nc; c += 32) acc += z[c] * z[c];
  return math::inverse_sigma<DeviceMath>(warp_sum(acc), real(nc), eps);
}

}  // namespace

// out (nrow, nc) = gain z / sigma + bias
extern "C" __global__ void layer_norm(int nrow, int nc, real eps, real* out, const real* z, const real* gain, const real* bias) {
  const int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  if (row >= nrow) return;
  const real* zr = row_of(z, row, nc);
  const real inv = inverse_sigma(nc, eps, zr);
  for (int c = threadIdx.x % 32; c < nc; c += 32) row_of(out, row, nc)[c] = zr[c] * inv * gain[c] + bias[c];
}

// dz (nrow, nc) =, given dout (nrow, nc), which may be dz
extern "C" __global__ void layer_norm_backward(int nrow, int nc, real eps, real* dz, const real* dout, const real* z, const real* gain) {
  const int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  if (row >= nrow) return;
  const real* zr = row_of(z, row, nc);
  const real* given = row_of(dout, row, nc);
  const real inv = inverse_sigma(nc, eps, zr);
  real acc = 0;
  for (int c = threadIdx.x % 32; c < nc; c += 32) acc += given[c] * gain[c] * zr[c];
  const real along = warp_sum(acc) * inv * inv / real(nc);
  for (int c = threadIdx.x % 32; c < nc; c += 32) row_of(dz, row, nc)[c] = math::layer_norm_backward(given[c] * gain[c], zr[c], along, inv);
}
