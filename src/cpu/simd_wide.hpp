// Vectors of doubles, from and to features of either precision.
#pragma once

#include "cpu/simd.hpp"
#include "math/wide.hpp"

namespace dpa2 {
namespace simd {
inline namespace DPA2_ISA {

/// Half a vector of floats.
struct Half {
  typedef float V __attribute__((vector_size(vector_bytes / 2)));
  typedef float U __attribute__((vector_size(vector_bytes / 2), aligned(sizeof(float)), may_alias));
};

/// As many numbers at p as a vector has doubles, and back.
template <class T>
DPA2_INLINE Vec<Wide<T>> load_wide(const T* p) {
  if constexpr (is_wide<T>) {
    return load<T>(p);
  } else if constexpr (is_dual<T>) {
    Wide<T> x[width<double>];
    for (int i = 0; i < width<double>; ++i) x[i] = wide(p[i]);
    return load<Wide<T>>(x);
  } else {
    return __builtin_convertvector(static_cast<Half::V>(*reinterpret_cast<const Half::U*>(p)), Vec<double>);
  }
}
template <class T>
DPA2_INLINE void store_wide(T* p, Vec<Wide<T>> v) {
  if constexpr (is_wide<T>) {
    store<T>(p, v);
  } else if constexpr (is_dual<T>) {
    Wide<T> x[width<double>];
    store<Wide<T>>(x, v);
    for (int i = 0; i < width<double>; ++i) p[i] = narrow<T>(x[i]);
  } else {
    *reinterpret_cast<Half::U*>(p) = __builtin_convertvector(v, Half::V);
  }
}

}  // namespace DPA2_ISA
}  // namespace simd
}  // namespace dpa2
