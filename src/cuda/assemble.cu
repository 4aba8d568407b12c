// Forces and virials from the gradients gamma of the edge vectors (theory 9.2), in double whatever the precision of the
// model, each sum in a fixed order.
#include "cuda/block.cuh"

using namespace dpa2;

// force (n, 3) = what leaves a centre minus what arrives at it as a neighbour; virial (n, 9) = -sum over the centre's edges of gamma_k d_l;
// atom_virial (n, 9) = half of each edge's share to either end, or null. start (n + 1); incoming edges as in sum_incoming. A thread per atom.
extern "C" __global__ void assemble(int n, double* force, double* virial, double* atom_virial, const real* gamma, const double* d,
                                    const int* start, const int* begin, const int* incoming) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  double f[3] = {}, own[9] = {}, other[9] = {};
  for (int e = start[i]; e < start[i + 1]; ++e)
    for (int k = 0; k < 3; ++k) {
      const double g = gamma[3LL * e + k];
      f[k] += g;
      for (int l = 0; l < 3; ++l) own[3 * k + l] -= g * d[3LL * e + l];
    }
  for (int q = begin[i]; q < begin[i + 1]; ++q) {
    const int e = incoming[q];
    for (int k = 0; k < 3; ++k) {
      const double g = gamma[3LL * e + k];
      f[k] -= g;
      if (atom_virial != nullptr)
        for (int l = 0; l < 3; ++l) other[3 * k + l] -= g * d[3LL * e + l];
    }
  }
  for (int k = 0; k < 3; ++k) force[3LL * i + k] = f[k];
  for (int k = 0; k < 9; ++k) {
    virial[9LL * i + k] = own[k];
    if (atom_virial != nullptr) atom_virial[9LL * i + k] = 0.5 * (own[k] + other[k]);
  }
}

// atom_virial (n, 9) of component l, in columns 3 k + l, as deepmd-kit defines it (theory 9.3): seeded, plain (nedge, 3): gradients of
// sum_a x_a[l] e_a and of the energy; x (n, 3): wrapped coordinates. A thread per atom.
extern "C" __global__ void assemble_deepmd(int n, int l, double* atom_virial, const real* seeded, const real* plain, const double* x,
                                           const double* d, const int* start, const int* centre, const int* begin, const int* incoming) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  double acc[3] = {};
  for (int e = start[i]; e < start[i + 1]; ++e)
    for (int k = 0; k < 3; ++k)
      acc[k] -= static_cast<double>(seeded[3LL * e + k]) - x[3LL * i + l] * static_cast<double>(plain[3LL * e + k]);
  for (int q = begin[i]; q < begin[i + 1]; ++q) {
    const int e = incoming[q];
    const double position = x[3LL * centre[e] + l] + d[3LL * e + l];
    for (int k = 0; k < 3; ++k) acc[k] += static_cast<double>(seeded[3LL * e + k]) - position * static_cast<double>(plain[3LL * e + k]);
  }
  for (int k = 0; k < 3; ++k) atom_virial[9LL * i + 3 * k + l] = acc[k];
}

// out (width) = the sums of the columns of in (n, width). One block of 256 threads per column.
extern "C" __global__ void column_sums(int n, int width, double* out, const double* in) {
  __shared__ double partial[256];
  const int c = blockIdx.x, t = threadIdx.x;
  double acc = 0;
  for (int i = t; i < n; i += blockDim.x) acc += in[static_cast<long long>(i) * width + c];
  partial[t] = acc;
  __syncthreads();
  for (int half = blockDim.x / 2; half > 0; half /= 2) {
    if (t < half) partial[t] += partial[t + half];
    __syncthreads();
  }
  if (t == 0) out[c] = partial[0];
}
