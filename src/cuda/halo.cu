// Rows of atoms that other processes have as ghosts: packed, unpacked and added (theory 13). A warp per row.
#include "cuda/block.cuh"
#include "cuda/halo.hpp"

using namespace dpa2;

namespace {

__device__ __forceinline__ int row_of_warp() { return blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; }

}  // namespace

extern "C" __global__ void __launch_bounds__(128) pack_rows(const cuda::PackArgs<real> p) {
  const int k = row_of_warp();
  if (k >= p.count) return;
  const real* from = row_of(p.rows, p.index[k], p.width);
  for (int c = threadIdx.x % 32; c < p.width; c += 32) row_of(p.out, k, p.width)[c] = from[c];
}

extern "C" __global__ void __launch_bounds__(128) unpack_rows(const cuda::UnpackArgs<real> p) {
  const int k = row_of_warp();
  if (k >= p.count) return;
  const int image = k - p.received;
  const real* from = image < 0 ? row_of(p.in, k, p.width) : row_of<const real>(p.rows, p.owners[image], p.width);
  real* to = row_of(p.rows, image < 0 ? p.receive[k] : p.images[image], p.width);
  for (int c = threadIdx.x % 32; c < p.width; c += 32) to[c] = from[c];
}

// One warp adds what an atom gets, in one order.
extern "C" __global__ void __launch_bounds__(128) collect_rows(const cuda::CollectArgs<real> p) {
  const int k = row_of_warp();
  if (k >= p.count) return;
  real* to = row_of(p.rows, p.atoms[k], p.width);
  for (int c = threadIdx.x % 32; c < p.width; c += 32) {
    real sum = to[c];
    for (int e = p.begin[k]; e < p.begin[k + 1]; ++e) {
      const int source = p.sources[e];
      sum += source >= 0 ? row_of(p.in, source, p.width)[c] : row_of<const real>(p.rows, ~source, p.width)[c];
    }
    to[c] = sum;
  }
}
