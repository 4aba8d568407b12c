// Vectors of the compiled ISA level, and exp and tanh on them.
//
// Everything here is internal to one translation unit of one ISA level: the inline namespace carries the level's name, so
// that the linker can never merge an AVX-512 instance into the code of an older processor.
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

#include "math/dual.hpp"
#include "padding.hpp"

#ifndef DPA2_ISA
#error "kernels are compiled with -DDPA2_ISA=<level>"
#endif

namespace dpa2 {

/// Tags of the ISA levels: kernels are class templates on the scalar type and on one of these.
namespace isa {
struct base {};
struct v2 {};
struct v3 {};
struct v4 {};
}  // namespace isa

namespace simd {
inline namespace DPA2_ISA {

#if defined(__AVX512F__)
inline constexpr int vector_bytes = 64;
#elif defined(__AVX__)
inline constexpr int vector_bytes = 32;
#else
inline constexpr int vector_bytes = 16;
#endif

#define DPA2_INLINE inline __attribute__((always_inline))

template <class T>
struct Types;
template <>
struct Types<double> {
  typedef double V __attribute__((vector_size(vector_bytes)));
  typedef std::int64_t I __attribute__((vector_size(vector_bytes)));
  typedef double U __attribute__((vector_size(vector_bytes), aligned(sizeof(double)), may_alias));
};
template <>
struct Types<float> {
  typedef float V __attribute__((vector_size(vector_bytes)));
  typedef std::int32_t I __attribute__((vector_size(vector_bytes)));
  typedef float U __attribute__((vector_size(vector_bytes), aligned(sizeof(float)), may_alias));
};
template <class T>
using Vec = typename Types<T>::V;
template <class T>
using Int = typename Types<T>::I;

/// As many dual numbers as a vector has lanes. In memory they are pairs beside each other.
template <class R>
struct DualVec {
  Vec<R> v, d;

  DPA2_INLINE DualVec operator-() const { return {-v, -d}; }
  friend DPA2_INLINE DualVec operator+(DualVec a, DualVec b) { return {a.v + b.v, a.d + b.d}; }
  friend DPA2_INLINE DualVec operator-(DualVec a, DualVec b) { return {a.v - b.v, a.d - b.d}; }
  friend DPA2_INLINE DualVec operator*(DualVec a, DualVec b) { return {a.v * b.v, a.v * b.d + a.d * b.v}; }
  friend DPA2_INLINE DualVec operator/(DualVec a, DualVec b) {
    const Vec<R> q = a.v / b.v;
    return {q, (a.d - q * b.d) / b.v};
  }
  friend DPA2_INLINE DualVec operator*(DualVec a, Dual<R> b) { return {a.v * b.v, a.v * b.d + a.d * b.v}; }
  friend DPA2_INLINE DualVec operator*(Dual<R> a, DualVec b) { return b * a; }
  friend DPA2_INLINE DualVec operator+(DualVec a, Dual<R> b) { return {a.v + b.v, a.d + b.d}; }
  friend DPA2_INLINE DualVec operator-(DualVec a, Dual<R> b) { return {a.v - b.v, a.d - b.d}; }
  // Beside plain numbers: scalars, or vectors of weights.
  friend DPA2_INLINE DualVec operator+(DualVec a, R b) { return {a.v + b, a.d}; }
  friend DPA2_INLINE DualVec operator+(R a, DualVec b) { return {a + b.v, b.d}; }
  friend DPA2_INLINE DualVec operator-(DualVec a, R b) { return {a.v - b, a.d}; }
  friend DPA2_INLINE DualVec operator-(R a, DualVec b) { return {a - b.v, -b.d}; }
  friend DPA2_INLINE DualVec operator*(DualVec a, R b) { return {a.v * b, a.d * b}; }
  friend DPA2_INLINE DualVec operator*(R a, DualVec b) { return {a * b.v, a * b.d}; }
  friend DPA2_INLINE DualVec operator/(R a, DualVec b) {
    const Vec<R> q = a / b.v;
    return {q, -q * b.d / b.v};
  }
  friend DPA2_INLINE DualVec operator+(DualVec a, Vec<R> b) { return {a.v + b, a.d}; }
  friend DPA2_INLINE DualVec operator-(DualVec a, Vec<R> b) { return {a.v - b, a.d}; }
  friend DPA2_INLINE DualVec operator*(DualVec a, Vec<R> b) { return {a.v * b, a.d * b}; }
  friend DPA2_INLINE DualVec operator*(Vec<R> a, DualVec b) { return {a * b.v, a * b.d}; }
  template <class N>
  DPA2_INLINE DualVec& operator+=(const N& x) {
    return *this = *this + x;
  }
  template <class N>
  DPA2_INLINE DualVec& operator-=(const N& x) {
    return *this = *this - x;
  }
  template <class N>
  DPA2_INLINE DualVec& operator*=(const N& x) {
    return *this = *this * x;
  }
  // Comparisons are those of the values.
  friend DPA2_INLINE auto operator<(DualVec a, DualVec b) { return a.v < b.v; }
  friend DPA2_INLINE auto operator>(DualVec a, DualVec b) { return a.v > b.v; }
};
template <class R>
struct Types<Dual<R>> {
  using V = DualVec<R>;
};

template <class T>
inline constexpr int width = vector_bytes / static_cast<int>(sizeof(Real<T>));
/// The unit of the padding, in numbers.
template <class T>
inline constexpr int pad = padded<T>(1);

/// Lanes of two vectors, by their numbers in the first and then in the second.
template <class T, int... lane>
DPA2_INLINE Vec<T> shuffled(Vec<T> a, Vec<T> b, std::integer_sequence<int, lane...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, lane...);
#else
  return __builtin_shuffle(a, b, Int<T>{lane...});
#endif
}

/// The even (or odd) lanes of two vectors that follow each other, and back: the first (or second) half of two vectors lane by lane.
template <class T, bool odd, int... lane>
DPA2_INLINE Vec<T> apart(Vec<T> a, Vec<T> b, std::integer_sequence<int, lane...>) {
  return shuffled<T>(a, b, std::integer_sequence<int, (2 * lane + odd)...>());
}
template <class T, bool second, int... lane>
DPA2_INLINE Vec<T> together(Vec<T> a, Vec<T> b, std::integer_sequence<int, lane...>) {
  constexpr int first = second ? width<T> / 2 : 0;
  return shuffled<T>(a, b, std::integer_sequence<int, (first + lane / 2 + (lane % 2) * width<T>)...>());
}

template <class T>
DPA2_INLINE Vec<T> load(const T* p) {
  if constexpr (is_dual<T>) {
    using R = Real<T>;
    constexpr std::make_integer_sequence<int, width<R>> lanes;
    const R* q = reinterpret_cast<const R*>(p);
    const Vec<R> a = load<R>(q), b = load<R>(q + width<R>);
    return {apart<R, false>(a, b, lanes), apart<R, true>(a, b, lanes)};
  } else {
    return *reinterpret_cast<const typename Types<T>::U*>(p);
  }
}
template <class T>
DPA2_INLINE void store(T* p, Vec<T> v) {
  if constexpr (is_dual<T>) {
    using R = Real<T>;
    constexpr std::make_integer_sequence<int, width<R>> lanes;
    R* q = reinterpret_cast<R*>(p);
    store<R>(q, together<R, false>(v.v, v.d, lanes));
    store<R>(q + width<R>, together<R, true>(v.v, v.d, lanes));
  } else {
    *reinterpret_cast<typename Types<T>::U*>(p) = v;
  }
}
/// `x - V{}` and not `x + V{}`: the subtraction of +0 is exact for every x, so it folds to a plain splat.
template <class T>
DPA2_INLINE Vec<T> splat(T x) {
  if constexpr (is_dual<T>)
    return {splat(x.v), splat(x.d)};
  else
    return x - Vec<T>{};
}
template <class T>
DPA2_INLINE T sum(Vec<T> v) {
  if constexpr (is_dual<T>) {
    return {sum<Real<T>>(v.v), sum<Real<T>>(v.d)};
  } else {
    T s = v[0];
    for (int i = 1; i < width<T>; ++i) s += v[i];
    return s;
  }
}
/// a where the condition holds, else b, lane by lane.
template <class M, class V>
DPA2_INLINE V choose(M condition, V a, V b) {
  return condition ? a : b;
}
template <class M, class R>
DPA2_INLINE DualVec<R> choose(M condition, DualVec<R> a, DualVec<R> b) {
  return {condition ? a.v : b.v, condition ? a.d : b.d};
}
/// The numbers without their tangents, and numbers that have none.
template <class T>
DPA2_INLINE Vec<Real<T>> value_of(Vec<T> x) {
  if constexpr (is_dual<T>)
    return x.v;
  else
    return x;
}
template <class T>
DPA2_INLINE Vec<T> constant(Vec<Real<T>> x) {
  if constexpr (is_dual<T>)
    return {x, Vec<Real<T>>{}};
  else
    return x;
}
/// What a loss gives weights: the numbers, and of dual numbers the tangents.
template <class T>
DPA2_INLINE Vec<Real<T>> gradient_of(Vec<T> x) {
  if constexpr (is_dual<T>)
    return x.d;
  else
    return x;
}
/// One round of a transposition of vectors that are D apart: lane by lane, what the first (or the second) becomes.
template <class T, int D, bool second, int... lane>
DPA2_INLINE Vec<T> exchanged(Vec<T> a, Vec<T> b, std::integer_sequence<int, lane...>) {
  return shuffled<T>(a, b, std::integer_sequence<int, ((lane & D) == 0 ? lane + second * D : width<T> + lane - !second * D)...>());
}
/// The odd groups of D lanes of the first vector change places with the even groups of the second.
template <class T, int D>
DPA2_INLINE void exchange_lanes(Vec<T> (&x)[width<T>]) {
  constexpr std::make_integer_sequence<int, width<T>> lanes;
#pragma GCC unroll 16
  for (int i = 0; i < width<T>; ++i) {
    if ((i & D) != 0) continue;
    const Vec<T> a = x[i], b = x[i + D];
    x[i] = exchanged<T, D, false>(a, b, lanes);
    x[i + D] = exchanged<T, D, true>(a, b, lanes);
  }
}
/// Transposes a square of as many vectors as they have lanes.
template <class T>
DPA2_INLINE void transpose(Vec<T> (&x)[width<T>]) {
  if constexpr (is_dual<T>) {
    Vec<Real<T>> v[width<T>], d[width<T>];
#pragma GCC unroll 16
    for (int i = 0; i < width<T>; ++i) {
      v[i] = x[i].v;
      d[i] = x[i].d;
    }
    transpose<Real<T>>(v);
    transpose<Real<T>>(d);
#pragma GCC unroll 16
    for (int i = 0; i < width<T>; ++i) x[i] = {v[i], d[i]};
  } else {
    exchange_lanes<T, 1>(x);
    if constexpr (width<T> > 2) exchange_lanes<T, 2>(x);
    if constexpr (width<T> > 4) exchange_lanes<T, 4>(x);
    if constexpr (width<T> > 8) exchange_lanes<T, 8>(x);
  }
}
template <class T>
DPA2_INLINE Vec<T> max(Vec<T> a, Vec<T> b) {
  return choose(a > b, a, b);
}
template <class T>
struct ExpConstants;
template <>
struct ExpConstants<double> {
  static constexpr double log2e = 1.442695040888963407359925, magic = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double ln2_hi = 0.69314670562744140625, ln2_lo = 0.0000004749325039031672321214582;
  static constexpr double lowest = -708.0, highest = 709.0, tanh_limit = 20.0;
  static constexpr int mantissa = 52, degree = 9;
  static constexpr double q[10] = {
      0.50000000000000010262,    0.16666666666666674544,     0.041666666666623991619,  0.0083333333333221860977, 0.0013888888917281530782,
      0.00019841269886655216106, 0.000024801521190738832655, 2.7557242270154316306e-6, 2.7620138477596201029e-7, 2.5110072603417671986e-8};
};
template <>
struct ExpConstants<float> {
  static constexpr float log2e = 1.44269504f, magic = 12582912.0f;  // 1.5 * 2^23
  static constexpr float ln2_hi = 0.693359375f, ln2_lo = -0.00021219444f;
  static constexpr float lowest = -87.0f, highest = 88.0f, tanh_limit = 10.0f;
  static constexpr int mantissa = 23, degree = 4;
  static constexpr float q[5] = {0.5000000027014884046f, 0.16666576826880360548f, 0.041666374723723097505f, 0.0083632051372283147684f,
                                 0.0013941161147990927904f};
};

// These functions take several vectors side by side: a single one is a long chain of operations that wait for each other, and
// the scheduler of a processor is too small to find the next ones by itself.
#define DPA2_EACH _Pragma("GCC unroll 8") for (int v = 0; v < N; ++v)

/// x = n ln 2 + r with |r| <= ln 2 / 2 (x within the clamped range): makes expm1(r) of x, and the scale 2^n.
template <class T, int N>
DPA2_INLINE void reduce_exp(Vec<T> (&x)[N], Vec<T> (&scale)[N]) {
  using C = ExpConstants<T>;
  Vec<T> n[N], q[N];
  DPA2_EACH scale[v] = x[v] * C::log2e + splat<T>(C::magic);
  DPA2_EACH n[v] = scale[v] - splat<T>(C::magic);
  DPA2_EACH x[v] -= n[v] * C::ln2_hi;
  DPA2_EACH x[v] -= n[v] * C::ln2_lo;
  DPA2_EACH q[v] = splat<T>(C::q[C::degree]);
#pragma GCC unroll 10
  for (int i = C::degree - 1; i >= 0; --i) DPA2_EACH q[v] = q[v] * x[v] + splat<T>(C::q[i]);
  DPA2_EACH x[v] += x[v] * x[v] * q[v];
  // The low bits of the shifted quotient hold n: adding the bias and moving them into the exponent makes 2^n.
  const Vec<T> one = splat<T>(T(1));
  DPA2_EACH scale[v] = (Vec<T>)(((Int<T>)scale[v] << C::mantissa) + (Int<T>)one);
}

/// exp(x) of arguments that are not large, in place: at most 2 ulp; below the smallest normal result it gives that result's size.
template <class T, int N>
DPA2_INLINE std::enable_if_t<!is_dual<T>> exp_falling(Vec<T> (&x)[N]) {
  using C = ExpConstants<T>;
  Vec<T> s[N];
  DPA2_EACH x[v] = x[v] < splat<T>(C::lowest) ? splat<T>(C::lowest) : x[v];  // in this order NaN stays NaN
  reduce_exp<T, N>(x, s);
  DPA2_EACH x[v] = s[v] + s[v] * x[v];
}
/// exp(x) of any argument, in place: beyond the largest result it gives the largest.
template <class T, int N>
DPA2_INLINE std::enable_if_t<!is_dual<T>> exp(Vec<T> (&x)[N]) {
  using C = ExpConstants<T>;
  DPA2_EACH x[v] = x[v] > splat<T>(C::highest) ? splat<T>(C::highest) : x[v];
  exp_falling<T, N>(x);
}

/// tanh(x) = E/(E + 2) with E = expm1(2|x|), in place: at most 3 ulp in double, 4 ulp in float.
template <class T, int N>
DPA2_INLINE std::enable_if_t<!is_dual<T>> tanh(Vec<T> (&x)[N]) {
  using C = ExpConstants<T>;
  const Int<T> minus = (Int<T>)splat<T>(T(-0.0));
  Int<T> sign[N];  // apart from the rest, so that -0 keeps it
  Vec<T> s[N];
  DPA2_EACH sign[v] = (Int<T>)x[v] & minus;
  DPA2_EACH x[v] = (Vec<T>)((Int<T>)x[v] & ~minus);
  DPA2_EACH x[v] = x[v] > splat<T>(C::tanh_limit) ? splat<T>(C::tanh_limit) : x[v];
  DPA2_EACH x[v] += x[v];
  reduce_exp<T, N>(x, s);
  DPA2_EACH x[v] = s[v] * x[v] + (s[v] - splat<T>(T(1)));
  DPA2_EACH x[v] = x[v] / (x[v] + splat<T>(T(2)));
  DPA2_EACH x[v] = (Vec<T>)((Int<T>)x[v] | sign[v]);
}

// The same of dual numbers.
template <class T, int N>
DPA2_INLINE std::enable_if_t<is_dual<T>> exp_falling(Vec<T> (&x)[N]) {
  Vec<Real<T>> y[N];
  DPA2_EACH y[v] = x[v].v;
  exp_falling<Real<T>, N>(y);
  DPA2_EACH x[v] = {y[v], y[v] * x[v].d};
}
template <class T, int N>
DPA2_INLINE std::enable_if_t<is_dual<T>> exp(Vec<T> (&x)[N]) {
  Vec<Real<T>> y[N];
  DPA2_EACH y[v] = x[v].v;
  exp<Real<T>, N>(y);
  DPA2_EACH x[v] = {y[v], y[v] * x[v].d};
}
template <class T, int N>
DPA2_INLINE std::enable_if_t<is_dual<T>> tanh(Vec<T> (&x)[N]) {
  Vec<Real<T>> y[N];
  DPA2_EACH y[v] = x[v].v;
  tanh<Real<T>, N>(y);
  DPA2_EACH x[v] = {y[v], (Real<T>(1) - y[v] * y[v]) * x[v].d};
}
#undef DPA2_EACH

template <class T>
DPA2_INLINE Vec<T> exp(Vec<T> x) {
  Vec<T> y[1] = {x};
  exp<T, 1>(y);
  return y[0];
}
template <class T>
DPA2_INLINE Vec<T> tanh(Vec<T> x) {
  Vec<T> y[1] = {x};
  tanh<T, 1>(y);
  return y[0];
}

}  // namespace DPA2_ISA
}  // namespace simd
}  // namespace dpa2

/// Instantiates a kernel class for both precisions at the level being compiled.
#define DPA2_INSTANTIATE(Kernel)                         \
  template struct Kernel<double, ::dpa2::isa::DPA2_ISA>; \
  template struct Kernel<float, ::dpa2::isa::DPA2_ISA>;
/// And for dual numbers of both.
#define DPA2_INSTANTIATE_DUAL(Kernel)                                  \
  template struct Kernel<::dpa2::Dual<double>, ::dpa2::isa::DPA2_ISA>; \
  template struct Kernel<::dpa2::Dual<float>, ::dpa2::isa::DPA2_ISA>;
