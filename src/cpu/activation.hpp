// Activations on contiguous arrays.
#pragma once

#include "math/activation.hpp"
#include "math/dual.hpp"

namespace dpa2 {

/// An activation with its constants, prepared once per model.
template <class T>
struct ActivationSpec {
  Activation kind = Activation::linear;
  math::Silut<T> silut{};
};

/// Of dual numbers the tangents come by the second derivative; it is 0 at kinks.
/// All arrays have n elements, n a multiple of the vector width (the padding is evaluated too); y may be z.
template <class T, class Isa>
struct Activate {
  /// y = phi(z)
  static void forward(const ActivationSpec<Real<T>>& spec, long n, T* y, const T* z);
  /// y = phi(z), dphi = phi'(z)
  static void forward_grad(const ActivationSpec<Real<T>>& spec, long n, T* y, T* dphi, const T* z);
  /// dz = dy * dphi; dz may be dy
  static void backward(long n, T* dz, const T* dy, const T* dphi);
};

}  // namespace dpa2
