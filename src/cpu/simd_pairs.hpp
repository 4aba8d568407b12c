// Dual numbers in lanes of another order than that of plain numbers, and as the pairs that they are in memory.
//
// Across blocks of 16 bytes lanes move slowly: values and tangents come apart, and together again, within them. A product of dual
// numbers alone may have its columns in any order, so that it pays for nothing else.
#pragma once

#include "cpu/simd.hpp"
#if defined(__AVX__)
#include <immintrin.h>
#endif

namespace dpa2 {
namespace simd {
inline namespace DPA2_ISA {

/// Lanes that blocks of 16 bytes have.
template <class R>
inline constexpr int block = 16 / static_cast<int>(sizeof(R));

/// Where lane i of the values (second: of the tangents) is in two vectors of pairs.
template <class R>
constexpr int apart_lane(int i, int second) {
  const int first = i / block<R> * block<R>, half = block<R> / 2, r = i % block<R>;
  return (r < half ? first + 2 * r : width<R> + first + 2 * (r - half)) + second;
}
/// Where lane i of the first (or second) vector of pairs is in the values and tangents.
template <class R>
constexpr int together_lane(int i, int second) {
  const int first = i / block<R> * block<R>, half = block<R> / 2;
  return i % 2 * width<R> + first + i % block<R> / 2 + second * half;
}
/// Which number has lane i.
template <class R>
constexpr int number_of_lane(int i) {
  const int half = block<R> / 2, q = i / block<R>, r = i % block<R>;
  return r < half ? q * half + r : width<R> / 2 + q * half + r - half;
}

template <class R, int... i>
DPA2_INLINE DualVec<R> load_blocks(const Dual<R>* p, std::integer_sequence<int, i...>) {
  const R* q = reinterpret_cast<const R*>(p);
  const Vec<R> a = load<R>(q), b = load<R>(q + width<R>);
  return {shuffled<R>(a, b, std::integer_sequence<int, apart_lane<R>(i, 0)...>()),
          shuffled<R>(a, b, std::integer_sequence<int, apart_lane<R>(i, 1)...>())};
}
template <class R, int... i>
DPA2_INLINE void store_blocks(Dual<R>* p, DualVec<R> x, std::integer_sequence<int, i...>) {
  R* q = reinterpret_cast<R*>(p);
  store<R>(q, shuffled<R>(x.v, x.d, std::integer_sequence<int, together_lane<R>(i, 0)...>()));
  store<R>(q + width<R>, shuffled<R>(x.v, x.d, std::integer_sequence<int, together_lane<R>(i, 1)...>()));
}
template <class R, int... i>
DPA2_INLINE Vec<R> in_blocks(Vec<R> x, std::integer_sequence<int, i...>) {
  return shuffled<R>(x, x, std::integer_sequence<int, number_of_lane<R>(i)...>());
}
template <class R, int... i>
DPA2_INLINE Vec<R> swapped(Vec<R> x, std::integer_sequence<int, i...>) {
  return shuffled<R>(x, x, std::integer_sequence<int, (i ^ 1)...>());
}

/// Dual numbers, their lanes in the order of the blocks, and back.
template <class R>
DPA2_INLINE DualVec<R> load_blocks(const Dual<R>* p) {
  return load_blocks<R>(p, std::make_integer_sequence<int, width<R>>());
}
template <class R>
DPA2_INLINE void store_blocks(Dual<R>* p, DualVec<R> x) {
  store_blocks<R>(p, x, std::make_integer_sequence<int, width<R>>());
}
/// Plain numbers in that order.
template <class R>
DPA2_INLINE Vec<R> in_blocks(Vec<R> x) {
  return in_blocks<R>(x, std::make_integer_sequence<int, width<R>>());
}

/// Pairs (v, d) as (d, v).
template <class R>
DPA2_INLINE Vec<R> swapped(Vec<R> x) {
  return swapped<R>(x, std::make_integer_sequence<int, width<R>>());
}
/// The sums of the pairs of two vectors that follow each other.
template <class R>
DPA2_INLINE Vec<R> sums_of_pairs(Vec<R> a, Vec<R> b) {
  constexpr std::make_integer_sequence<int, width<R>> lanes;
  return apart<R, false>(a, b, lanes) + apart<R, true>(a, b, lanes);
}
/// (v, d, v, d, ...). Doubles come by an intrinsic where pairs are shorter than a vector: compilers make one load of several pairs
/// otherwise, which has to be taken to pieces.
template <class R>
DPA2_INLINE Vec<R> splat_pair(const Dual<R>* p) {
  if constexpr (sizeof(R) == sizeof(float)) {
    typedef double Pair __attribute__((may_alias, aligned(sizeof(float))));
    return (Vec<R>)splat<double>(*reinterpret_cast<const Pair*>(p));
  } else {
#if defined(__AVX512F__)
    return (Vec<R>)_mm512_maskz_broadcast_f64x2(0xff, _mm_loadu_pd(reinterpret_cast<const double*>(p)));
#elif defined(__AVX__)
    return (Vec<R>)_mm256_broadcast_pd(reinterpret_cast<const __m128d*>(p));
#else
    return load<R>(reinterpret_cast<const R*>(p));
#endif
  }
}

}  // namespace DPA2_ISA
}  // namespace simd
}  // namespace dpa2
