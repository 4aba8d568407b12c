// Dual numbers y + eps y': a value and its tangent along one direction of all positions (theory 15).
//
// Kernels are templates on the scalar: run on dual numbers, what they compute carries its derivative along the direction with it.
// Weights and constants do not depend on positions and stay plain.
#pragma once

#include <type_traits>

#include "math/portable.hpp"
#include "number.hpp"

namespace dpa2 {

template <class R>
struct Dual {
  R v, d;

  Dual() = default;  // uninitialised, as a plain number is
  DPA2_MATH constexpr Dual(R value, R tangent) : v(value), d(tangent) {}
  /// A constant.
  template <class N, class = std::enable_if_t<std::is_arithmetic<N>::value>>
  DPA2_MATH constexpr Dual(N value) : v(static_cast<R>(value)), d(0) {}  // NOLINT: constants stand in formulas as they are
  DPA2_MATH explicit operator double() const { return static_cast<double>(v); }

  DPA2_MATH Dual operator-() const { return {-v, -d}; }
  friend DPA2_MATH Dual operator+(Dual a, Dual b) { return {a.v + b.v, a.d + b.d}; }
  friend DPA2_MATH Dual operator-(Dual a, Dual b) { return {a.v - b.v, a.d - b.d}; }
  friend DPA2_MATH Dual operator*(Dual a, Dual b) { return {a.v * b.v, a.v * b.d + a.d * b.v}; }
  friend DPA2_MATH Dual operator/(Dual a, Dual b) {
    const R q = a.v / b.v;
    return {q, (a.d - q * b.d) / b.v};
  }
  // Beside plain numbers: less work than a constant.
  friend DPA2_MATH Dual operator+(Dual a, R b) { return {a.v + b, a.d}; }
  friend DPA2_MATH Dual operator+(R a, Dual b) { return {a + b.v, b.d}; }
  friend DPA2_MATH Dual operator-(Dual a, R b) { return {a.v - b, a.d}; }
  friend DPA2_MATH Dual operator-(R a, Dual b) { return {a - b.v, -b.d}; }
  friend DPA2_MATH Dual operator*(Dual a, R b) { return {a.v * b, a.d * b}; }
  friend DPA2_MATH Dual operator*(R a, Dual b) { return {a * b.v, a * b.d}; }
  friend DPA2_MATH Dual operator/(Dual a, R b) { return {a.v / b, a.d / b}; }
  template <class N>
  DPA2_MATH Dual& operator+=(N x) {
    return *this = *this + x;
  }
  template <class N>
  DPA2_MATH Dual& operator-=(N x) {
    return *this = *this - x;
  }
  template <class N>
  DPA2_MATH Dual& operator*=(N x) {
    return *this = *this * x;
  }
  template <class N>
  DPA2_MATH Dual& operator/=(N x) {
    return *this = *this / x;
  }
  // Comparisons are those of the values.
  friend DPA2_MATH bool operator<(Dual a, Dual b) { return a.v < b.v; }
  friend DPA2_MATH bool operator>(Dual a, Dual b) { return a.v > b.v; }
  friend DPA2_MATH bool operator>=(Dual a, Dual b) { return a.v >= b.v; }
  friend DPA2_MATH bool operator<=(Dual a, Dual b) { return a.v <= b.v; }
};

namespace math {

/// exp, sqrt of a number on the host, through double; of a dual number with its tangent.
template <class T>
DPA2_MATH T exp_of(T x) {
  return static_cast<T>(__builtin_exp(static_cast<double>(x)));
}
template <class R>
DPA2_MATH Dual<R> exp_of(Dual<R> x) {
  const R y = exp_of(x.v);
  return {y, y * x.d};
}
template <class T>
DPA2_MATH T sqrt_of(T x) {
  return static_cast<T>(__builtin_sqrt(static_cast<double>(x)));
}
template <class R>
DPA2_MATH Dual<R> sqrt_of(Dual<R> x) {
  const R y = sqrt_of(x.v);
  return {y, x.d / (y + y)};
}
/// The number without its tangent.
template <class T>
DPA2_MATH T value_of(T x) {
  return x;
}
template <class R>
DPA2_MATH R value_of(Dual<R> x) {
  return x.v;
}
/// What a loss gives a weight: a number, and of dual numbers the tangent.
template <class T>
DPA2_MATH T gradient_of(T x) {
  return x;
}
template <class R>
DPA2_MATH R gradient_of(Dual<R> x) {
  return x.d;
}

}  // namespace math

}  // namespace dpa2
