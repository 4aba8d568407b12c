#include "cpu/activation.hpp"

#include "cpu/simd.hpp"

namespace dpa2 {
namespace {

using simd::load;
using simd::store;
using simd::Vec;
using simd::width;

template <class T>
struct Functions {
  static DPA2_INLINE Vec<T> exp(Vec<T> x) { return simd::exp<T>(x); }
  static DPA2_INLINE Vec<T> tanh(Vec<T> x) { return simd::tanh<T>(x); }
  /// Only softplus takes logarithms: lane by lane.
  static DPA2_INLINE Vec<T> log1p(Vec<T> x) {
    if constexpr (is_dual<T>) {
      return {Functions<Real<T>>::log1p(x.v), x.d / (Real<T>(1) + x.v)};
    } else {
      Vec<T> y = x;
      for (int i = 0; i < width<T>; ++i) y[i] = static_cast<T>(__builtin_log1p(static_cast<double>(x[i])));
      return y;
    }
  }
};

template <Activation A, bool Grad, class T>
void apply(const math::Silut<Real<T>>& silut, long n, T* y, T* dphi, const T* z) {
  long i = 0;
  if constexpr (A == Activation::tanh) {  // the one of all published inputs
    constexpr int N = 4;
    for (; i + N * width<T> <= n; i += N * width<T>) {
      Vec<T> t[N];
#pragma GCC unroll 4
      for (int v = 0; v < N; ++v) t[v] = load<T>(z + i + v * width<T>);
      simd::tanh<T, N>(t);
#pragma GCC unroll 4
      for (int v = 0; v < N; ++v) {
        store<T>(y + i + v * width<T>, t[v]);
        if constexpr (Grad) store<T>(dphi + i + v * width<T>, Real<T>(1) - t[v] * t[v]);
      }
    }
  }
  for (; i < n; i += width<T>) {
    Vec<T> v, d;
    const Vec<T> x = load<T>(z + i);
    if constexpr (is_dual<T>) {
      // Derivatives first, by the tangent 1: exp(-x) times a larger one overflows where x is far below zero, though what becomes of it
      // is nearly zero there. At the kinks the tangent is 0, as the derivative.
      math::activate<A, Functions<T>>(Vec<T>{x.v, simd::splat<Real<T>>(Real<T>(1))}, silut, v, d);
      v.d = d.v * x.d;
      d.d *= x.d;
    } else {
      math::activate<A, Functions<T>>(x, silut, v, d);
    }
    store<T>(y + i, v);
    if constexpr (Grad) store<T>(dphi + i, d);
  }
}

template <bool Grad, class T>
void dispatch(const ActivationSpec<Real<T>>& spec, long n, T* y, T* dphi, const T* z) {
  switch (spec.kind) {
#define DPA2_CASE(A)  \
  case Activation::A: \
    return apply<Activation::A, Grad>(spec.silut, n, y, dphi, z);
    DPA2_CASE(linear)
    DPA2_CASE(tanh) DPA2_CASE(relu) DPA2_CASE(relu6) DPA2_CASE(sigmoid) DPA2_CASE(softplus) DPA2_CASE(gelu) DPA2_CASE(silu) DPA2_CASE(silut)
#undef DPA2_CASE
  }
}

}  // namespace

template <class T, class Isa>
void Activate<T, Isa>::forward(const ActivationSpec<Real<T>>& spec, long n, T* y, const T* z) {
  dispatch<false, T>(spec, n, y, nullptr, z);
}

template <class T, class Isa>
void Activate<T, Isa>::forward_grad(const ActivationSpec<Real<T>>& spec, long n, T* y, T* dphi, const T* z) {
  dispatch<true, T>(spec, n, y, dphi, z);
}

template <class T, class Isa>
void Activate<T, Isa>::backward(long n, T* dz, const T* dy, const T* dphi) {
  for (long i = 0; i < n; i += width<T>) store<T>(dz + i, load<T>(dy + i) * load<T>(dphi + i));
}

DPA2_INSTANTIATE(Activate)
DPA2_INSTANTIATE_DUAL(Activate)

}  // namespace dpa2
