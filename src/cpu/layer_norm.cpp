#include "cpu/layer_norm.hpp"

#include "cpu/linear.hpp"
#include "cpu/simd.hpp"
#include "math/layer_norm.hpp"

namespace dpa2 {

using simd::load;
using simd::store;
using simd::sum;
using simd::Vec;
using simd::width;

namespace {

struct Root {
  template <class T>
  static DPA2_INLINE T sqrt(T x) {
    return math::sqrt_of(x);
  }
};

}  // namespace

template <class T, class Isa>
void LayerNorm<T, Isa>::forward(int n, int nc, int channels, Real<T> eps, T* out, T* zh, T* inv_sigma, const T* z, const Real<T>* gain,
                                const Real<T>* bias) {
  using R = Real<T>;
  for (int e = 0; e < n; ++e) {
    const long row = static_cast<long>(e) * nc;
    Vec<T> acc{};
    for (int c = 0; c < nc; c += width<T>) {
      const Vec<T> v = load<T>(z + row + c);
      acc += v * v;
    }
    const T inv = math::inverse_sigma<Root>(sum<T>(acc), static_cast<T>(channels), static_cast<T>(eps));
    inv_sigma[e] = inv;
    for (int c = 0; c < nc; c += width<T>) {
      const Vec<T> v = load<T>(z + row + c) * inv;
      store<T>(zh + row + c, v);
      store<T>(out + row + c, v * load<R>(gain + c) + load<R>(bias + c));
    }
  }
}

template <class T, class Isa>
void LayerNorm<T, Isa>::backward(int n, int nc, int channels, T* dz, Real<T>* dgain, Real<T>* dbias, const T* dout, const T* zh,
                                 const T* inv_sigma, const Real<T>* gain) {
  using R = Real<T>;
  if (dgain != nullptr) Linear<T, Isa>::gain_gradient(nc, n, dgain, dout, nc, zh, nc);
  if (dbias != nullptr) Linear<T, Isa>::bias_gradient(nc, n, dbias, dout, nc);
  for (int e = 0; e < n; ++e) {
    const long row = static_cast<long>(e) * nc;
    Vec<T> acc{};
    for (int c = 0; c < nc; c += width<T>) acc += load<T>(dout + row + c) * load<R>(gain + c) * load<T>(zh + row + c);
    const T mean = sum<T>(acc) / static_cast<R>(channels);
    for (int c = 0; c < nc; c += width<T>)
      store<T>(dz + row + c,
               math::layer_norm_backward(load<T>(dout + row + c) * load<R>(gain + c), load<T>(zh + row + c), mean, inv_sigma[e]));
  }
}

DPA2_INSTANTIATE(LayerNorm)
DPA2_INSTANTIATE_DUAL(LayerNorm)

}  // namespace dpa2
