// What goes with the dense products, which are the library's: the activation of the descriptor's entry, and the sums over the transposed
// list that bring the gradients of edges to their neighbours. Each row is summed by one thread, in a fixed order: no atomics.
#include "cuda/activation.cuh"
#include "cuda/block.cuh"

using namespace dpa2;

// y (size / width rows, width) = phi(z + bias[row type]), dphi = phi' or null, which may be z; bias (ntypes, width) or null
extern "C" __global__ void entry_activation(long long size, int width, real* y, real* dphi, const real* z, const real* bias,
                                            const int* types) {
  const long long at = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= size) return;
  const int c = static_cast<int>(at % width);
  real slope;
  activate(bias != nullptr ? z[at] + bias[types[at / width] * width + c] : z[at], y[at], slope);
  if (dphi != nullptr) dphi[at] = slope;
}

// dz (size) = dy * dphi
extern "C" __global__ void entry_activation_backward(long long size, real* dz, const real* dy, const real* dphi) {
  const long long at = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at < size) dz[at] = dy[at] * dphi[at];
}

// out (n, width) += or =: the sum of rows (nedge, width) over the edges whose neighbour is i: incoming[begin[i]..begin[i + 1]]
extern "C" __global__ void sum_incoming(int width, int accumulate, real* out, const real* rows, const int* begin, const int* incoming) {
  const int i = blockIdx.x;
  for (int c = threadIdx.x; c < width; c += blockDim.x) {
    real acc = accumulate != 0 ? row_of(out, i, width)[c] : real(0);
    for (int q = begin[i]; q < begin[i + 1]; ++q) acc += row_of(rows, incoming[q], width)[c];
    row_of(out, i, width)[c] = acc;
  }
}

// columns 0..width of out (rows, out_width) = or += columns 0..width of in (rows, in_width)
extern "C" __global__ void copy_columns(long long size, int width, int accumulate, real* out, int out_width, const real* in, int in_width) {
  const long long at = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= size) return;
  const int c = static_cast<int>(at % width);
  real* to = out + at / width * out_width + c;
  const real value = in[at / width * in_width + c];
  *to = accumulate != 0 ? *to + value : value;
}
