// LayerNorm of a row z whose mean is zero by construction (theory 8.6, 12.8, S3): z / sigma, gain, bias.
#pragma once

#include "math/portable.hpp"

namespace dpa2 {
namespace math {

/// 1 / sqrt(<z^2> + eps) from the sum of z^2 over the channels; `F` brings sqrt for T.
template <class F, class T>
DPA2_MATH T inverse_sigma(T squares, T channels, T eps) {
  return T(1) / F::sqrt(squares / channels + eps);
}

/// The gradient of one channel, given = dout gain: (given - normal mean) / sigma with normal = z / sigma and mean = <given normal>, or
/// with z for normal and mean / sigma for mean. V is T or a vector of T.
template <class T, class V>
DPA2_MATH V layer_norm_backward(V given, V normal, T mean, T inv_sigma) {
  return (given - normal * mean) * inv_sigma;
}

}  // namespace math
}  // namespace dpa2
