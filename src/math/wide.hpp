// The numbers that sums are made in where those of the features would lose digits: doubles, also of float32.
#pragma once

#include <type_traits>

#include "math/dual.hpp"

namespace dpa2 {

template <class T>
using Wide = std::conditional_t<is_dual<T>, Dual<double>, double>;
template <class T>
inline constexpr bool is_wide = std::is_same_v<T, Wide<T>>;

template <class T>
inline Wide<T> wide(T x) {
  if constexpr (is_dual<T>)
    return {x.v, x.d};
  else
    return x;
}
template <class T>
inline T narrow(Wide<T> x) {
  if constexpr (is_dual<T>)
    return {static_cast<Real<T>>(x.v), static_cast<Real<T>>(x.d)};
  else
    return static_cast<T>(x);
}

/// Whether the attention takes its switches as what they lack to 1. The shift of its logits makes much of that, and of a float next to 1
/// its digits are lost; a double has enough of them.
template <class T>
inline constexpr bool by_fall = !is_wide<T>;

}  // namespace dpa2
