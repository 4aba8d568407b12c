// The activation functions of deepmd-kit and their derivatives (theory 4.2).
#pragma once

#include "math/portable.hpp"

namespace dpa2 {

/// The same numbers on the host, in the kernels and in CUDA. `gelu_tf` is `gelu`, `none` is `linear`, `custom_silu` is `silut`.
enum class Activation : int { linear = 0, tanh, relu, relu6, sigmoid, softplus, gelu, silu, silut };

namespace math {

/// Constants of silut: x s(x) below the threshold, tanh(slope (x - threshold)) + offset from there on.
template <class T>
struct Silut {
  T threshold, slope, offset;
};

/// y = phi(x), dy = phi'(x). V is T or a vector of T; `F` brings exp, tanh and log1p for V.
template <Activation A, class F, class T, class V>
DPA2_MATH void activate(V x, const Silut<T>& silut, V& y, V& dy) {
  const V zero{};  // not x - x, which is no number where x is infinite
  const V one = zero + T(1);
  if constexpr (A == Activation::tanh) {
    y = F::tanh(x);
    dy = one - y * y;
  } else if constexpr (A == Activation::relu) {
    y = choose(x < zero, zero, x);  // in this order NaN stays NaN
    dy = choose(x > zero, one, zero);
  } else if constexpr (A == Activation::relu6) {
    const V six = zero + T(6);
    y = choose(x < zero, zero, x);
    y = choose(y > six, six, y);
    dy = choose(x > zero, one, zero);
    dy = choose(x < six, dy, zero);
  } else if constexpr (A == Activation::sigmoid) {
    y = one / (one + F::exp(-x));
    dy = y * (one - y);
  } else if constexpr (A == Activation::softplus) {
    const V limit = zero + T(20);
    y = choose(x > limit, x, F::log1p(F::exp(choose(x > limit, limit, x))));
    dy = choose(x > limit, one, one / (one + F::exp(-x)));
  } else if constexpr (A == Activation::gelu) {
    const T c = T(0.79788456080286535588);  // sqrt(2/pi)
    const V th = F::tanh(c * (x + T(0.044715) * x * x * x));
    y = T(0.5) * x * (one + th);
    dy = T(0.5) * (one + th) + T(0.5) * x * (one - th * th) * c * (one + T(0.134145) * x * x);
  } else if constexpr (A == Activation::silu) {
    const V s = one / (one + F::exp(-x));
    y = x * s;
    dy = s * (one + x * (one - s));
  } else if constexpr (A == Activation::silut) {
    const V limit = zero + silut.threshold;
    const V s = one / (one + F::exp(-x));
    const V th = F::tanh((x - limit) * silut.slope);
    y = choose(x < limit, x * s, th + silut.offset);
    dy = choose(x < limit, s * (one + x * (one - s)), silut.slope * (one - th * th));
  } else {
    y = x;
    dy = one;
  }
}

/// phi''(x), given y = phi(x) and dy = phi'(x); 0 at kinks. Numbers alone, for the tables of compressed models.
template <Activation A, class F, class T>
DPA2_MATH T second_derivative(T x, const Silut<T>& silut, T y, T dy) {
  if constexpr (A == Activation::tanh) {
    return T(-2) * y * dy;
  } else if constexpr (A == Activation::sigmoid) {
    return dy * (T(1) - T(2) * y);
  } else if constexpr (A == Activation::softplus) {
    return x > T(20) ? T(0) : dy * (T(1) - dy);  // dy = s(x)
  } else if constexpr (A == Activation::gelu) {
    const T c = T(0.79788456080286535588);
    const T th = F::tanh(c * (x + T(0.044715) * x * x * x));
    const T bell = T(1) - th * th, slope = c * (T(1) + T(0.134145) * x * x), bend = c * T(0.26829) * x;
    return bell * slope + T(0.5) * x * bell * (bend - T(2) * th * slope * slope);
  } else if constexpr (A == Activation::silu || A == Activation::silut) {
    if (A == Activation::silut && !(x < silut.threshold)) {
      const T th = y - silut.offset;
      return T(-2) * silut.slope * silut.slope * th * (T(1) - th * th);
    }
    const T s = T(1) / (T(1) + F::exp(-x));
    return s * (T(1) - s) * (T(2) + x * (T(1) - T(2) * s));
  } else {
    return T(0);
  }
}

}  // namespace math
}  // namespace dpa2
