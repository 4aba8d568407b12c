// Four numbers at a time: the compiler makes vector loads of them where they are aligned to 16 bytes.
#pragma once

#include "cuda/portable.cuh"

namespace dpa2 {

struct Quad {
  real at[4];
};

/// `from` is a multiple of four numbers from memory that is aligned to 16 bytes.
__device__ __forceinline__ Quad read_quad(const real* from) {
  if constexpr (sizeof(real) == 4) {
    const float4 v = *reinterpret_cast<const float4*>(from);
    return {{real(v.x), real(v.y), real(v.z), real(v.w)}};
  } else {
    const double2 a = *reinterpret_cast<const double2*>(from), b = *reinterpret_cast<const double2*>(from + 2);
    return {{real(a.x), real(a.y), real(b.x), real(b.y)}};
  }
}

__device__ __forceinline__ void write_quad(real* to, const Quad& q) {
  if constexpr (sizeof(real) == 4) {
    *reinterpret_cast<float4*>(to) = make_float4(q.at[0], q.at[1], q.at[2], q.at[3]);
  } else {
    *reinterpret_cast<double2*>(to) = make_double2(q.at[0], q.at[1]);
    *reinterpret_cast<double2*>(to + 2) = make_double2(q.at[2], q.at[3]);
  }
}

}  // namespace dpa2
