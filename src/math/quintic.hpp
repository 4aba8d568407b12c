// A polynomial of degree five: one interval of the tables of compressed models (docs/compression.md).
#pragma once

#include "math/portable.hpp"

namespace dpa2 {

/// Coefficients of the polynomial.
constexpr int quintic_terms = 6;

namespace math {

/// value = sum_k a(k) x^k and slope, its derivative, by Horner's rule. `a` gives the coefficients of a channel, or of a vector V of them.
template <class V, class X, class Coefficients>
DPA2_MATH void quintic(X x, const Coefficients& a, V& value, V& slope) {
  slope = a(5);
  value = slope * x + a(4);
  slope = slope * x + value;
  value = value * x + a(3);
  slope = slope * x + value;
  value = value * x + a(2);
  slope = slope * x + value;
  value = value * x + a(1);
  slope = slope * x + value;
  value = value * x + a(0);
}

}  // namespace math
}  // namespace dpa2
