// Vectors of sums, from and to numbers of the features' precision.
#pragma once

#include "cpu/simd.hpp"
#include "cpu/sum.hpp"

namespace dpa2 {
namespace simd {
inline namespace DPA2_ISA {

/// The numbers at p that fill a vector of sums, and back. Of floats they are as many as it has doubles.
template <class T>
DPA2_INLINE Vec<Sum<T>> load_sum(const T* p) {
  if constexpr (std::is_same_v<T, Sum<T>>) {
    return load<T>(p);
  } else {
    typedef T Half __attribute__((vector_size(vector_bytes / 2)));
    typedef T U __attribute__((vector_size(vector_bytes / 2), aligned(sizeof(T)), may_alias));
    return __builtin_convertvector(static_cast<Half>(*reinterpret_cast<const U*>(p)), Vec<Sum<T>>);
  }
}
template <class T>
DPA2_INLINE void store_sum(T* p, Vec<Sum<T>> v) {
  if constexpr (std::is_same_v<T, Sum<T>>) {
    store<T>(p, v);
  } else {
    typedef T Half __attribute__((vector_size(vector_bytes / 2)));
    typedef T U __attribute__((vector_size(vector_bytes / 2), aligned(sizeof(T)), may_alias));
    *reinterpret_cast<U*>(p) = __builtin_convertvector(v, Half);
  }
}

}  // namespace DPA2_ISA
}  // namespace simd
}  // namespace dpa2
