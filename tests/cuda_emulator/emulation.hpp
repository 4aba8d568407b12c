// The CUDA language for a C++ compiler: what a kernel source may use, in terms of the runtime of runtime.cpp.
//
// Everything that a kernel may not use (see src/cuda/portable.cuh) is missing, so that using it does not compile.
#pragma once

#include <math.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>

namespace emulation {

struct Index3 {
  unsigned x, y, z;
};
struct Position {
  Index3 thread, block;
};

enum class Operation : int {
  barrier,
  barrier_count,
  barrier_and,
  barrier_or,
  warp,
  shuffle,
  shuffle_up,
  shuffle_down,
  shuffle_xor,
  ballot,
  any,
  all,
  product_tf32,
  product_f64
};

extern "C" {
extern const Position* emulation_position;  // of the thread that runs
extern Index3 emulation_block_size, emulation_grid_size;
// A meeting of the threads of a block, or of the lanes in `mask`: what the thread gets from it.
std::uint64_t emulation_meet(Operation operation, unsigned mask, std::uint64_t value, int argument, int width, const char* file, int line);
void* emulation_dynamic_shared();
void emulation_yield();  // another thread may go first, where the schedule is random
}

template <class T>
std::uint64_t bits_of(T value) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 4 or 8 bytes");
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return bits;
}

template <class T>
T shuffle(Operation operation, unsigned mask, T value, int argument, int width, const char* file, int line) {
  const std::uint64_t bits = emulation_meet(operation, mask, bits_of(value), argument, width, file, line);
  T result;
  std::memcpy(&result, &bits, sizeof(T));
  return result;
}

// __syncwarp(), __shfl_sync(mask, v, lane) and so on have optional arguments, which a macro takes from these.
struct Site {
  const char* file;
  int line;

  void warp(unsigned mask = 0xffffffffu) const { emulation_meet(Operation::warp, mask, 0, 0, 32, file, line); }
  template <class T>
  T get(unsigned mask, T v, int lane, int width = 32) const {
    return shuffle(Operation::shuffle, mask, v, lane, width, file, line);
  }
  template <class T>
  T up(unsigned mask, T v, unsigned by, int width = 32) const {
    return shuffle(Operation::shuffle_up, mask, v, static_cast<int>(by), width, file, line);
  }
  template <class T>
  T down(unsigned mask, T v, unsigned by, int width = 32) const {
    return shuffle(Operation::shuffle_down, mask, v, static_cast<int>(by), width, file, line);
  }
  template <class T>
  T exclusive_or(unsigned mask, T v, int by, int width = 32) const {
    return shuffle(Operation::shuffle_xor, mask, v, by, width, file, line);
  }
  int vote(Operation operation, unsigned mask, int predicate) const {
    return static_cast<int>(emulation_meet(operation, mask, predicate != 0 ? 1 : 0, 0, 32, file, line));
  }
};

// What a lane brings to a product of its warp by tensor cores, and what it takes back: see runtime.cpp for the meaning.
struct ProductTf32 {
  float d[4];
  unsigned a[4], b[2];
};
struct ProductF64 {
  double d[2], a, b;
};

// m16n8k8, all lanes: d (4 numbers) += a b of rounded numbers (4 and 2), in the order of PTX's fragments.
inline void multiply_tf32(float* d, const unsigned* a, const unsigned* b, const char* file, int line) {
  ProductTf32 own{{d[0], d[1], d[2], d[3]}, {a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  emulation_meet(Operation::product_tf32, 0xffffffffu, reinterpret_cast<std::uintptr_t>(&own), 0, 32, file, line);
  for (int k = 0; k < 4; ++k) d[k] = own.d[k];
}
// m8n8k4, likewise.
inline void multiply_f64(double* d, double a, double b, const char* file, int line) {
  ProductF64 own{{d[0], d[1]}, a, b};
  emulation_meet(Operation::product_f64, 0xffffffffu, reinterpret_cast<std::uintptr_t>(&own), 0, 32, file, line);
  d[0] = own.d[0], d[1] = own.d[1];
}

template <class T>
struct Atomic {
  static_assert(std::is_integral_v<T>, "no atomics on floating-point numbers: their order would show in the result");
  template <class F>
  static T update(T* at, F change) {
    emulation_yield();
    T old = __atomic_load_n(at, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(at, &old, change(old), false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
    return old;
  }
};

// Of a vector type of CUDA, and of a struct of arguments.
template <class T>
auto code_of_class(int) -> decltype(T::emulated_code()) {
  return T::emulated_code();
}
template <class T>
std::string code_of_class(long) {
  return "s" + std::to_string(sizeof(T));
}

// The type of an argument for the launching side: "i4", "f8", a pointer "*f8", to constants "*cf8", a struct of n bytes "sn".
template <class T>
std::string code_of() {
  if constexpr (std::is_pointer_v<T>) {
    using To = std::remove_pointer_t<T>;
    return (std::is_const_v<To> ? "*c" : "*") + code_of<std::remove_cv_t<To>>();
  } else if constexpr (std::is_same_v<T, bool>) {
    return "b1";
  } else if constexpr (std::is_arithmetic_v<T>) {
    return (std::is_floating_point_v<T> ? "f" : std::is_signed_v<T> ? "i" : "u") + std::to_string(sizeof(T));
  } else {
    return code_of_class<T>(0);
  }
}

template <class... A>
std::string signature_of(void (*)(A...)) {
  std::string all;
  ((all += code_of<std::remove_cv_t<A>>() + ","), ...);
  return all;
}

template <class... A, std::size_t... N>
void call_with(void (*kernel)(A...), void** values, std::index_sequence<N...>) {
  kernel(*static_cast<std::remove_cv_t<A>*>(values[N])...);
}
template <class... A>
void call(void (*kernel)(A...), void** values) {
  call_with(kernel, values, std::index_sequence_for<A...>{});
}

}  // namespace emulation

#define DPA2_EMULATION 1
#define __global__ __attribute__((unused))
#define __device__ __attribute__((unused))
#define __host__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)
// A section of its own, so that the runtime can fill all of it before a block starts.
#define __shared__ static __attribute__((section("cuda_shared")))
#define __constant__ static
#define DYNAMIC_SHARED(T, name) T* const name = static_cast<T*>(emulation::emulation_dynamic_shared())

#define threadIdx (emulation::emulation_position->thread)
#define blockIdx (emulation::emulation_position->block)
#define blockDim (emulation::emulation_block_size)
#define gridDim (emulation::emulation_grid_size)
static constexpr int warpSize = 32;

#define DPA2_BARRIER(operation, value) \
  static_cast<int>(emulation::emulation_meet(emulation::Operation::operation, 0, value, 0, 32, __FILE__, __LINE__))
#define __syncthreads() ((void)DPA2_BARRIER(barrier, 0))
#define __syncthreads_count(predicate) DPA2_BARRIER(barrier_count, (predicate) ? 1 : 0)
#define __syncthreads_and(predicate) DPA2_BARRIER(barrier_and, (predicate) ? 1 : 0)
#define __syncthreads_or(predicate) DPA2_BARRIER(barrier_or, (predicate) ? 1 : 0)

#define DPA2_SITE (emulation::Site{__FILE__, __LINE__})
#define __syncwarp(...) DPA2_SITE.warp(__VA_ARGS__)
#define __shfl_sync(...) DPA2_SITE.get(__VA_ARGS__)
#define __shfl_up_sync(...) DPA2_SITE.up(__VA_ARGS__)
#define __shfl_down_sync(...) DPA2_SITE.down(__VA_ARGS__)
#define __shfl_xor_sync(...) DPA2_SITE.exclusive_or(__VA_ARGS__)
#define __ballot_sync(mask, predicate) static_cast<unsigned>(DPA2_SITE.vote(emulation::Operation::ballot, mask, predicate))
#define __any_sync(mask, predicate) DPA2_SITE.vote(emulation::Operation::any, mask, predicate)
#define __all_sync(mask, predicate) DPA2_SITE.vote(emulation::Operation::all, mask, predicate)

static inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
static inline void __threadfence_block() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

template <class T>
T atomicAdd(T* at, T by) {
  return emulation::Atomic<T>::update(at, [by](T old) { return static_cast<T>(old + by); });
}
template <class T>
T atomicSub(T* at, T by) {
  return emulation::Atomic<T>::update(at, [by](T old) { return static_cast<T>(old - by); });
}
template <class T>
T atomicMax(T* at, T v) {
  return emulation::Atomic<T>::update(at, [v](T old) { return old < v ? v : old; });
}
template <class T>
T atomicMin(T* at, T v) {
  return emulation::Atomic<T>::update(at, [v](T old) { return v < old ? v : old; });
}
template <class T>
T atomicOr(T* at, T v) {
  return emulation::Atomic<T>::update(at, [v](T old) { return old | v; });
}
template <class T>
T atomicAnd(T* at, T v) {
  return emulation::Atomic<T>::update(at, [v](T old) { return old & v; });
}
template <class T>
T atomicExch(T* at, T v) {
  return emulation::Atomic<T>::update(at, [v](T) { return v; });
}
template <class T>
T atomicCAS(T* at, T expected, T v) {
  return emulation::Atomic<T>::update(at, [=](T old) { return old == expected ? v : old; });
}

template <class T>
T __ldg(const T* at) {
  return *at;
}
static inline int __popc(unsigned v) { return __builtin_popcount(v); }
static inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
static inline int __ffs(int v) { return __builtin_ffs(v); }
static inline int __clz(int v) { return v == 0 ? 32 : __builtin_clz(static_cast<unsigned>(v)); }
static inline unsigned __float_as_uint(float x) {
  unsigned bits = 0;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return bits;
}
static inline float __uint_as_float(unsigned bits) {
  float x = 0;
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
}
static inline long long __double_as_longlong(double x) {
  long long bits = 0;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return bits;
}
static inline double __longlong_as_double(long long bits) {
  double x = 0;
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
}
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline float rsqrt(float x) { return 1.0f / sqrtf(x); }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }
static inline void __trap() { __builtin_trap(); }

#define DPA2_LEAST_AND_LARGEST(T)                         \
  static inline T min(T a, T b) { return b < a ? b : a; } \
  static inline T max(T a, T b) { return a < b ? b : a; }
DPA2_LEAST_AND_LARGEST(int)
DPA2_LEAST_AND_LARGEST(unsigned)
DPA2_LEAST_AND_LARGEST(long)
DPA2_LEAST_AND_LARGEST(unsigned long)
DPA2_LEAST_AND_LARGEST(long long)
DPA2_LEAST_AND_LARGEST(unsigned long long)
static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline double min(double a, double b) { return fmin(a, b); }
static inline double max(double a, double b) { return fmax(a, b); }

// Made where they are wanted: of a call whose result goes to memory the thread sanitizer of GCC does not see the write.
#define DPA2_VECTOR(name, T, n, alignment, fields)                         \
  struct alignas(alignment) name {                                         \
    T fields;                                                              \
    static std::string emulated_code() { return emulation::code_of<T>(); } \
  };                                                                       \
  template <class... A>                                                    \
  __attribute__((always_inline)) inline name make_##name(A... values) {    \
    static_assert(sizeof...(A) == n, "one value for each component");      \
    return {static_cast<T>(values)...};                                    \
  }
#define DPA2_XY x, y
#define DPA2_XYZ x, y, z
#define DPA2_XYZW x, y, z, w
DPA2_VECTOR(int2, int, 2, 8, DPA2_XY)
DPA2_VECTOR(int3, int, 3, 4, DPA2_XYZ)
DPA2_VECTOR(int4, int, 4, 16, DPA2_XYZW)
DPA2_VECTOR(float2, float, 2, 8, DPA2_XY)
DPA2_VECTOR(float3, float, 3, 4, DPA2_XYZ)
DPA2_VECTOR(float4, float, 4, 16, DPA2_XYZW)
DPA2_VECTOR(double2, double, 2, 16, DPA2_XY)
DPA2_VECTOR(double3, double, 3, 8, DPA2_XYZ)
