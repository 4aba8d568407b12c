// Between the model's numbers and the caller's: descriptors, rotation matrices (theory 8.12) and weights of both. A warp per row.
#include "cuda/block.cuh"
#include "cuda/failed.cuh"
#include "cuda/outputs.hpp"

using namespace dpa2;

namespace {

__device__ __forceinline__ int row_of_warp() { return blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; }

}  // namespace

extern "C" __global__ void __launch_bounds__(128) descriptor_rows(const cuda::DescriptorRowsArgs<real> p) {
  const int i = row_of_warp(), width = p.n1 + p.ntebd;
  if (i >= p.rows) return;
  for (int c = threadIdx.x % 32; c < width; c += 32) {
    const real value = c < p.n1 ? row_of(p.g1, i, p.n1)[c] : p.tebd[p.types[i] * p.ntebd + c - p.n1];
    row_of(p.out, i, width)[c] = unless_failed(p.failed, value);
  }
}

extern "C" __global__ void __launch_bounds__(128) descriptor_seeds(const cuda::DescriptorSeedsArgs<real> p) {
  const int i = row_of_warp();
  if (i >= p.rows) return;
  for (int c = threadIdx.x % 32; c < p.n1; c += 32) {
    const real value = real(row_of(p.seed, i, p.width)[c]);
    real* out = row_of(p.dg1, i, p.n1) + c;
    *out = p.accumulate != 0 ? *out + value : value;
  }
}

extern "C" __global__ void __launch_bounds__(128) rotation_rows(const cuda::RotationArgs<real> p) {
  const int i = row_of_warp();
  if (i >= p.rows) return;
  const real* C = row_of(p.C, i, 3 * p.n2);
  double* out = row_of(p.out, i, 3 * p.n2);
  for (int c = threadIdx.x % 32; c < p.n2; c += 32)
    for (int x = 0; x < 3; ++x) out[3 * c + x] = unless_failed(p.failed, C[x * p.n2 + c]);
}

extern "C" __global__ void __launch_bounds__(128) rotation_seeds(const cuda::RotationSeedsArgs<real> p) {
  const int i = row_of_warp();
  if (i >= p.rows) return;
  const double* seed = row_of(p.seed, i, 3 * p.n2);
  real* dC = row_of(p.dC, i, 3 * p.n2);
  for (int c = threadIdx.x % 32; c < p.n2; c += 32)
    for (int x = 0; x < 3; ++x) {
      const real value = real(seed[3 * c + x]);
      dC[x * p.n2 + c] = p.accumulate != 0 ? dC[x * p.n2 + c] + value : value;
    }
}
