// The smooth cutoff of an environment: 1 up to rcut_smth, a fifth-order polynomial down to 0 at rcut (theory 2).
#pragma once

#include "math/portable.hpp"

namespace dpa2 {
namespace math {

/// sw(r) and its derivative. V is T or a vector of T; inv_width = 1/(rcut - rcut_smth).
template <class T, class V>
DPA2_MATH void smooth_switch(V r, T rcut_smth, T inv_width, V& sw, V& dsw) {
  const V zero = r - r;
  const V one = zero + T(1);
  V u = (r - rcut_smth) * inv_width;
  u = choose(u < zero, zero, u);
  u = choose(u > one, one, u);
  const V v = one - u;
  sw = u * u * u * (u * (T(15) - u * T(6)) - T(10)) + T(1);
  dsw = u * u * v * v * (T(-30) * inv_width);
}

/// 1 - sw(r) with all its digits, also where it is next to nothing.
template <class T, class V>
DPA2_MATH V switch_fall(V r, T rcut_smth, T inv_width) {
  V u = (r - rcut_smth) * inv_width;
  u = u < V(0) ? V(0) : u > V(1) ? V(1) : u;
  return u * u * u * (T(10) - u * (T(15) - u * T(6)));
}

}  // namespace math
}  // namespace dpa2
