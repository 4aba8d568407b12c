// LayerNorm of rows whose mean is zero by construction (theory 8.6, 12.8, S3).
#pragma once

#include "math/dual.hpp"

namespace dpa2 {

/// The projection in front of the norm has its mean removed when the model is prepared, so only the variance is left.
/// Rows (n, nc) with nc padded to 64 bytes; z is zero and gain, bias are zero in the padding; `channels` counts the real ones.
template <class T, class Isa>
struct LayerNorm {
  /// zh = z / sqrt(<z^2> + eps), out = zh * gain + bias; inv_sigma (n); zh may be z
  static void forward(int n, int nc, int channels, Real<T> eps, T* out, T* zh, T* inv_sigma, const T* z, const Real<T>* gain,
                      const Real<T>* bias);
  /// dz = ; dgain (nc), dbias (nc) += unless null; dz may be dout
  static void backward(int n, int nc, int channels, T* dz, Real<T>* dgain, Real<T>* dbias, const T* dout, const T* zh, const T* inv_sigma,
                       const Real<T>* gain);
};

}  // namespace dpa2
