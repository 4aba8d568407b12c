// A product by tensor cores alone, which the host compares with its own: whether a device does what mma.cuh takes for granted. One warp.
#include "cuda/portable.cuh"
#include "cuda/tensor_check.hpp"
#ifdef TENSOR
#include "cuda/mma.cuh"
#endif

using namespace dpa2;

#ifdef TENSOR
namespace {

constexpr int DEPTH = cuda::tensor_check_depth, COLUMNS = cuda::tensor_check_columns;

__device__ __forceinline__ void check(const cuda::TensorCheckArgs<float>& p, int group, int member) {
  float sum[2][2] = {};
  for (int k = 0; k < DEPTH; k += 8) {
    Factor<float> a[2][2], b[2];
    for (int q = 0; q < 2; ++q) {
      for (int h = 0; h < 2; ++h) a[q][h] = factor_of(p.a[(group + 8 * h) * DEPTH + k + member + 4 * q]);
      b[q] = factor_of(p.b[(k + member + 4 * q) * COLUMNS + group]);
    }
    multiply_add(sum, a, b);
  }
  for (int h = 0; h < 2; ++h)
    for (int s = 0; s < 2; ++s) p.out[(group + 8 * h) * COLUMNS + 2 * member + s] = sum[h][s];
}

__device__ __forceinline__ void check(const cuda::TensorCheckArgs<double>& p, int group, int member) {
  double sum[2] = {};
  for (int k = 0; k < DEPTH; k += 4) {
    const Factor<double> a = factor_of(p.a[group * DEPTH + k + member]);
    multiply_add(sum, a, factor_of(p.b[(k + member) * COLUMNS + group]));
  }
  for (int s = 0; s < 2; ++s) p.out[group * COLUMNS + 2 * member + s] = sum[s];
}

}  // namespace
#endif

extern "C" __global__ void __launch_bounds__(32) tensor_check(const cuda::TensorCheckArgs<real> p) {
#ifdef TENSOR
  check(p, static_cast<int>(threadIdx.x) / 4, static_cast<int>(threadIdx.x) % 4);
#endif
}
