// From the fitting network's numbers to outputs that are no energies, and back (theory 9.4, 12.2): plain numbers, dipoles and
// polarizabilities, the last two with the rotation matrix. A warp per centre, in double whatever the precision of the model.
#include "cuda/block.cuh"
#include "cuda/counted.cuh"
#include "cuda/failed.cuh"
#include "cuda/head.hpp"

using namespace dpa2;

namespace {

__device__ __forceinline__ int row_of_warp() { return blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; }

/// The coefficients of one centre.
struct Coefficients {
  const real *net, *without;
  const double *scale, *bias;
  bool counted;
  __device__ __forceinline__ Coefficients(const cuda::CoefficientArgs<real>& a, int i)
      : net(row_of(a.net, i, a.width)),
        without(a.vacuum == 0 ? nullptr : row_of(a.net, a.centres + (a.vacuum == 1 ? i / a.per_frame : i), a.width)),
        scale(a.scale == nullptr ? nullptr : row_of(a.scale, a.types[i], a.width)),
        bias(row_of(a.bias, a.types[i], a.width)),
        counted(counts(a.given_types, a.types, a.counted, i)) {}
  __device__ __forceinline__ double operator()(int c) const {
    if (!counted) return 0;
    double value = net[c];
    if (without != nullptr) value -= without[c];
    return value * factor(c) + bias[c];
  }
  /// d coefficient / d net
  __device__ __forceinline__ double factor(int c) const { return scale == nullptr ? 1.0 : scale[c]; }
};

/// Seeds of one centre's output.
struct Seed {
  const double* row;
  double factor;
  int component;
  __device__ __forceinline__ Seed(const cuda::SeedArgs& a, int i, int numbers)
      : row(a.component < 0 ? row_of(a.seed, i, numbers) : nullptr),
        factor(a.component >= 0 && a.seed != nullptr ? a.seed[i] : 1.0),
        component(a.component) {}
  __device__ __forceinline__ double operator()(int k) const { return row != nullptr ? row[k] : k == component ? factor : 0.0; }
};

/// The symmetric part of the weights of a polarizability: all that a symmetric tensor sees of them.
struct SymmetricSeed {
  double s[9];
  __device__ __forceinline__ SymmetricSeed(const cuda::SeedArgs& a, int i) {
    const Seed seed(a, i, 9);
    for (int x = 0; x < 3; ++x)
      for (int y = 0; y < 3; ++y) s[3 * x + y] = 0.5 * (seed(3 * x + y) + seed(3 * y + x));
  }
  /// to (3) = S R_c
  __device__ __forceinline__ void times(double* to, const real* C, int n2, int c) const {
    for (int x = 0; x < 3; ++x) to[x] = s[3 * x] * C[c] + s[3 * x + 1] * C[n2 + c] + s[3 * x + 2] * C[2 * n2 + c];
  }
};

}  // namespace

extern "C" __global__ void __launch_bounds__(128) head_values(const cuda::HeadValuesArgs<real> p) {
  const int i = row_of_warp();
  if (i >= p.z.centres) return;
  const Coefficients z(p.z, i);
  double* out = row_of(p.out, i, p.z.width);
  for (int c = threadIdx.x % 32; c < p.z.width; c += 32) out[c] = unless_failed(p.z.failed, z(c));
}

extern "C" __global__ void __launch_bounds__(128) head_values_backward(const cuda::HeadValuesBackwardArgs<real> p) {
  const int i = row_of_warp();
  if (i >= p.z.centres) return;
  const Coefficients z(p.z, i);
  const Seed seed(p.seed, i, p.z.width);
  real* dnet = row_of(p.dnet, i, p.z.width);
  for (int c = threadIdx.x % 32; c < p.z.width; c += 32) dnet[c] = z.counted ? real(seed(c) * z.factor(c)) : real(0);
}

extern "C" __global__ void __launch_bounds__(128) dipole(const cuda::TensorArgs<real> p) {
  const int i = row_of_warp(), lane = threadIdx.x % 32;
  if (i >= p.z.centres) return;
  const Coefficients z(p.z, i);
  const real* C = row_of(p.C, i, 3 * p.n2);
  double sum[3] = {};
  for (int c = lane; c < p.n2; c += 32) {
    const double value = z(c);
    for (int x = 0; x < 3; ++x) sum[x] += value * C[x * p.n2 + c];
  }
  for (int x = 0; x < 3; ++x) {
    sum[x] = sum_of_warp(sum[x]);
    if (lane == 0) p.out[3LL * i + x] = unless_failed(p.z.failed, sum[x]);
  }
}

extern "C" __global__ void __launch_bounds__(128) dipole_backward(const cuda::TensorBackwardArgs<real> p) {
  const int i = row_of_warp(), n2 = p.n2;
  if (i >= p.z.centres) return;
  const Coefficients z(p.z, i);
  const Seed seed(p.seed, i, 3);
  const real* C = row_of(p.C, i, 3 * n2);
  real *dnet = row_of(p.dnet, i, n2), *dC = row_of(p.dC, i, 3 * n2);
  for (int c = threadIdx.x % 32; c < n2; c += 32) {
    const double value = z(c), dz = seed(0) * C[c] + seed(1) * C[n2 + c] + seed(2) * C[2 * n2 + c];
    dnet[c] = z.counted ? real(dz * z.factor(c)) : real(0);
    for (int x = 0; x < 3; ++x) dC[x * n2 + c] = real(seed(x) * value);
  }
}

extern "C" __global__ void __launch_bounds__(128) polar(const cuda::TensorArgs<real> p) {
  const int i = row_of_warp(), lane = threadIdx.x % 32, n2 = p.n2;
  if (i >= p.z.centres) return;
  const Coefficients z(p.z, i);
  const real* C = row_of(p.C, i, 3 * n2);
  double sum[9] = {};
  for (int k = lane; k < p.z.width; k += 32) {
    const int c = p.diagonal != 0 ? k : k / n2, d = p.diagonal != 0 ? k : k % n2;
    const double value = z(k);
    for (int x = 0; x < 3; ++x)
      for (int y = 0; y < 3; ++y) sum[3 * x + y] += value * C[x * n2 + c] * C[y * n2 + d];
  }
  for (int k = 0; k < 9; ++k) sum[k] = sum_of_warp(sum[k]);
  if (lane != 0) return;
  const double shift = p.shift != nullptr && z.counted ? p.shift[p.z.types[i]] : 0.0;
  for (int x = 0; x < 3; ++x)
    for (int y = 0; y < 3; ++y) {
      const double value = 0.5 * (sum[3 * x + y] + sum[3 * y + x]) + (x == y ? shift : 0.0);
      p.out[9LL * i + 3 * x + y] = unless_failed(p.z.failed, value);
    }
}

extern "C" __global__ void __launch_bounds__(128, 4) polar_backward(const cuda::TensorBackwardArgs<real> p) {
  const int i = row_of_warp(), lane = threadIdx.x % 32, n2 = p.n2;
  if (i >= p.z.centres) return;
  const Coefficients z(p.z, i);
  const SymmetricSeed seed(p.seed, i);
  const real* C = row_of(p.C, i, 3 * n2);
  real *dnet = row_of(p.dnet, i, p.z.width), *dC = row_of(p.dC, i, 3 * n2);
  for (int k = lane; k < p.z.width; k += 32) {
    const int c = p.diagonal != 0 ? k : k / n2, d = p.diagonal != 0 ? k : k % n2;
    double of_d[3];
    seed.times(of_d, C, n2, d);
    const double dz = of_d[0] * C[c] + of_d[1] * C[n2 + c] + of_d[2] * C[2 * n2 + c];
    dnet[k] = z.counted ? real(dz * z.factor(k)) : real(0);
  }
  for (int c = lane; c < n2; c += 32) {
    double sum[3] = {};
    const int first = p.diagonal != 0 ? c : 0, last = p.diagonal != 0 ? c + 1 : n2;
    for (int d = first; d < last; ++d) {
      double of_d[3];
      seed.times(of_d, C, n2, d);
      const double value = p.diagonal != 0 ? 2 * z(c) : z(c * n2 + d) + z(d * n2 + c);
      for (int x = 0; x < 3; ++x) sum[x] += value * of_d[x];
    }
    for (int x = 0; x < 3; ++x) dC[x * n2 + c] = real(sum[x]);
  }
}
