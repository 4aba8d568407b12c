// What the scalar mathematics needs to compile as C++ for a SIMD type and as CUDA for a scalar.
#pragma once

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define DPA2_MATH __host__ __device__ __forceinline__
#else
#define DPA2_MATH inline __attribute__((always_inline))
#endif

namespace dpa2 {
namespace math {

/// a where the condition holds, else b: a scalar's, or lane by lane. Vectors of dual numbers have their own.
template <class M, class V>
DPA2_MATH V choose(M condition, V a, V b) {
  return condition ? a : b;
}

}  // namespace math
}  // namespace dpa2
