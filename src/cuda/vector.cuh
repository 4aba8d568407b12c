// Numbers at 16 bytes, or two at their own alignment, loaded and stored at once.
#pragma once

#include "cuda/portable.cuh"

namespace dpa2 {

constexpr int VECTOR = 16 / sizeof(real);  // numbers in sixteen bytes

__device__ __forceinline__ void load2(float* v, const float* from) {
  const float2 p = *reinterpret_cast<const float2*>(from);
  v[0] = p.x, v[1] = p.y;
}
__device__ __forceinline__ void load2(double* v, const double* from) {
  const double2 p = *reinterpret_cast<const double2*>(from);
  v[0] = p.x, v[1] = p.y;
}
__device__ __forceinline__ void load2(int* v, const int* from) {
  const int2 p = *reinterpret_cast<const int2*>(from);
  v[0] = p.x, v[1] = p.y;
}

__device__ __forceinline__ void load4(float* v, const float* from) {
  const float4 q = *reinterpret_cast<const float4*>(from);
  v[0] = q.x, v[1] = q.y, v[2] = q.z, v[3] = q.w;
}
__device__ __forceinline__ void load4(double* v, const double* from) {
  load2(v, from);
  load2(v + 2, from + 2);
}
__device__ __forceinline__ void load4(int* v, const int* from) {
  const int4 q = *reinterpret_cast<const int4*>(from);
  v[0] = q.x, v[1] = q.y, v[2] = q.z, v[3] = q.w;
}
__device__ __forceinline__ void store2(float* to, const float* v) { *reinterpret_cast<float2*>(to) = make_float2(v[0], v[1]); }
__device__ __forceinline__ void store2(double* to, const double* v) { *reinterpret_cast<double2*>(to) = make_double2(v[0], v[1]); }
__device__ __forceinline__ void store4(float* to, const float* v) { *reinterpret_cast<float4*>(to) = make_float4(v[0], v[1], v[2], v[3]); }
__device__ __forceinline__ void store4(double* to, const double* v) {
  reinterpret_cast<double2*>(to)[0] = make_double2(v[0], v[1]);
  reinterpret_cast<double2*>(to)[1] = make_double2(v[2], v[3]);
}

/// N numbers, 2 or a multiple of 4, from where they are aligned for that many.
template <int N>
__device__ __forceinline__ void read_vector(const real* from, real* to) {
  if constexpr (N == 2) {
    load2(to, from);
  } else {
#pragma unroll
    for (int x = 0; x < N; x += 4) load4(to + x, from + x);
  }
}

template <int N>
__device__ __forceinline__ void write_vector(real* to, const real* v) {
  if constexpr (N == 2) {
    store2(to, v);
  } else {
#pragma unroll
    for (int x = 0; x < N; x += 4) store4(to + x, v + x);
  }
}

/// Sixteen bytes.
__device__ __forceinline__ void copy_vector(real* to, const real* from) {
  if constexpr (sizeof(real) == 8)
    *reinterpret_cast<double2*>(to) = *reinterpret_cast<const double2*>(from);
  else
    *reinterpret_cast<float4*>(to) = *reinterpret_cast<const float4*>(from);
}

/// Four numbers as a value.
struct Quad {
  real at[4];
};

/// Where row `row` begins of an array with `fours` vectors of four numbers in a row, counted in these: 32 bits are enough for 32 GiB of
/// them, and the address is one instruction.
__device__ __forceinline__ const real* row_of_fours(const real* array, int row, int fours) {
  return reinterpret_cast<const Quad*>(array)[row * fours].at;
}

__device__ __forceinline__ Quad read_quad(const real* from) {
  Quad q;
  load4(q.at, from);
  return q;
}
__device__ __forceinline__ void write_quad(real* to, const Quad& q) { store4(to, q.at); }

}  // namespace dpa2
