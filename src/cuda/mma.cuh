// Products of small matrices by the tensor cores of a warp, compiled with -DTENSOR=1 for compute capability 8.0 and later: the only place
// with inline PTX. The names of PTX's manual are used: lane = 4 group + member.
//
// float: m16n8k8 of tf32, whose mantissa has 11 bits with the leading one. Every number is the sum of a large and a small part, and three
// products stand for one: what is left out is 2^-22 of it.
// double: m8n8k4, whose sums are fused multiply-adds.
#pragma once

#if !defined(__CUDACC__) && !defined(__CUDACC_RTC__) && !defined(DPA2_EMULATION)
#error "a kernel source is compiled by NVRTC, nvcc or the emulation"
#endif

namespace dpa2 {

/// What a lane gives to a product: one number of a matrix, made ready once and used several times.
template <class T>
struct Factor;

template <>
struct Factor<float> {
  unsigned large, small;
};
template <>
struct Factor<double> {
  double value;
};

#ifdef DPA2_EMULATION
__device__ __forceinline__ void multiply_tf32(float (&d)[2][2], const unsigned (&a)[2][2], const unsigned (&b)[2]) {
  emulation::multiply_tf32(&d[0][0], &a[0][0], b, __FILE__, __LINE__);
}
__device__ __forceinline__ void multiply_add(double (&d)[2], const Factor<double>& a, const Factor<double>& b) {
  emulation::multiply_f64(d, a.value, b.value, __FILE__, __LINE__);
}
#else
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#error "the products of mma.cuh need compute capability 8.0"
#endif
__device__ __forceinline__ void multiply_tf32(float (&d)[2][2], const unsigned (&a)[2][2], const unsigned (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(d[0][0]), "+f"(d[0][1]), "+f"(d[1][0]), "+f"(d[1][1])
               : "r"(a[0][0]), "r"(a[0][1]), "r"(a[1][0]), "r"(a[1][1]), "r"(b[0]), "r"(b[1]));
}
/// d (8, 8) += a (8, 4) b (4, 8): of d the lane has row `group` and columns 2 member and 2 member + 1, of a row `group` and column
/// `member`, of b row `member` and column `group`. All lanes of the warp take part.
__device__ __forceinline__ void multiply_add(double (&d)[2], const Factor<double>& a, const Factor<double>& b) {
  asm volatile("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0, %1}, {%2}, {%3}, {%0, %1};"
               : "+d"(d[0]), "+d"(d[1])
               : "d"(a.value), "d"(b.value));
}
#endif

/// Of eight rows in a fragment of A, and of four columns.
template <class T>
constexpr int HALVES = sizeof(T) == 4 ? 2 : 1;

/// The large part is rounded as cvt.rna.tf32 does, in half its instructions: nearest, ties away. What it leaves has 12 bits of mantissa
/// at most, so that to drop the last one is as good as to round it. What is not finite becomes a small part that is not a number.
__device__ __forceinline__ Factor<float> factor_of(float x) {
  constexpr unsigned mask = 0xffffe000u, half = 0x1000u;
  const unsigned large = (__float_as_uint(x) + half) & mask;
  return {large, __float_as_uint(x - __uint_as_float(large)) & mask};
}
__device__ __forceinline__ Factor<double> factor_of(double x) { return {x}; }

/// d (16, 8) += a (16, 8) b (8, 8): of d[h][s] the lane has row `group` + 8 h and column 2 member + s, of a[q][h] row `group` + 8 h and
/// column `member` + 4 q, of b[q] row `member` + 4 q and column `group`. All lanes of the warp take part. Small terms come first.
__device__ __forceinline__ void multiply_add(float (&d)[2][2], const Factor<float> (&a)[2][2], const Factor<float> (&b)[2]) {
  const unsigned large_a[2][2] = {{a[0][0].large, a[0][1].large}, {a[1][0].large, a[1][1].large}};
  const unsigned small_a[2][2] = {{a[0][0].small, a[0][1].small}, {a[1][0].small, a[1][1].small}};
  const unsigned large_b[2] = {b[0].large, b[1].large}, small_b[2] = {b[0].small, b[1].small};
  multiply_tf32(d, small_a, large_b);
  multiply_tf32(d, large_a, small_b);
  multiply_tf32(d, large_a, large_b);
}
__device__ __forceinline__ void multiply_add(double (&d)[1][2], const Factor<double> (&a)[1][1], const Factor<double> (&b)[1]) {
  multiply_add(d[0], a[0][0], b[0]);
}

}  // namespace dpa2
