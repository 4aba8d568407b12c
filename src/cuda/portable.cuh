// What a kernel source needs to be the same file under NVRTC, nvcc and, for the emulation of tests/cuda_emulator, a C++
// compiler.
//
// A source is compiled once per precision, with -Dreal=float or -Dreal=double, and with src/ on the include path. What makes
// the emulation possible holds for every source: no standard headers, only the `_sync` primitives with explicit masks, no
// __activemask, no inline PTX but in mma.cuh, no cp.async; and for results that are the same in every run: one block owns
// each output row, no atomics on floating-point numbers.
#pragma once

#if !defined(__CUDACC__) && !defined(__CUDACC_RTC__) && !defined(DPA2_EMULATION)
#error "a kernel source is compiled by NVRTC, nvcc or the emulation"
#endif
#ifndef real
#error "the scalar type is given with -Dreal=float or -Dreal=double"
#endif

#include "math/activation.hpp"
#include "math/env_mat.hpp"
#include "math/portable.hpp"
#include "math/switch.hpp"

// All lanes of a warp.
#define FULL_MASK 0xffffffffu

namespace dpa2 {

/// The number itself, of which the compiler knows nothing: what is computed from it is computed here, not before the loop around, and not
/// kept in registers that other things need.
static __device__ __forceinline__ int opaque(int v) {
#ifndef DPA2_EMULATION
  asm volatile("" : "+r"(v));
#endif
  return v;
}

}  // namespace dpa2

// T* name: the shared memory whose size the launch gives. One array of bytes for the whole source, since the language wants
// one type for all declarations of it.
#ifndef DPA2_EMULATION
#define DYNAMIC_SHARED(T, name)                                        \
  extern __shared__ __align__(16) unsigned char dpa2_dynamic_shared[]; \
  T* const name = reinterpret_cast<T*>(dpa2_dynamic_shared)
#endif

namespace dpa2 {

/// The functions that src/math asks for, of one scalar.
struct DeviceMath {
  static __device__ __forceinline__ float exp(float x) { return expf(x); }
  static __device__ __forceinline__ double exp(double x) { return ::exp(x); }
  static __device__ __forceinline__ float exp2(float x) { return exp2f(x); }
  static __device__ __forceinline__ double exp2(double x) { return ::exp2(x); }
  static __device__ __forceinline__ float tanh(float x) { return tanhf(x); }
  static __device__ __forceinline__ double tanh(double x) { return ::tanh(x); }
  static __device__ __forceinline__ float log1p(float x) { return log1pf(x); }
  static __device__ __forceinline__ double log1p(double x) { return ::log1p(x); }
  static __device__ __forceinline__ float sqrt(float x) { return sqrtf(x); }
  static __device__ __forceinline__ double sqrt(double x) { return ::sqrt(x); }
};

}  // namespace dpa2
