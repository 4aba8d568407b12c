// What a scalar consists of: kernels are templates on plain numbers and on dual numbers of them (math/dual.hpp).
#pragma once

namespace dpa2 {

template <class R>
struct Dual;

namespace math {

template <class T>
struct NumberOf {
  using Real = T;
  static constexpr bool dual = false;
};
template <class R>
struct NumberOf<Dual<R>> {
  using Real = R;
  static constexpr bool dual = true;
};

}  // namespace math

/// The plain numbers that a weight consists of where T is that of the features.
template <class T>
using Real = typename math::NumberOf<T>::Real;
template <class T>
inline constexpr bool is_dual = math::NumberOf<T>::dual;

}  // namespace dpa2
