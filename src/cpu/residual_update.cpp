#include "cpu/residual_update.hpp"

#include "cpu/linear.hpp"
#include "cpu/simd.hpp"

namespace dpa2 {

using simd::load;
using simd::store;
using simd::Vec;
using simd::width;

template <class T, class Isa>
void ResidualUpdate<T, Isa>::forward(int n, int nc, const Residual<Real<T>>& residual, T* out, const T* u, const T* const* U) {
  for (int i = 0; i < n; ++i)
    for (int c = 0; c < nc; c += width<T>) {
      const long k = static_cast<long>(i) * nc + c;
      Vec<T> acc = load<T>(u + k) * residual.a;
      for (int t = 0; t < residual.nterms; ++t) acc += load<T>(U[t] + k) * load<Real<T>>(residual.r[t] + c);
      store<T>(out + k, acc);
    }
}

template <class T, class Isa>
void ResidualUpdate<T, Isa>::backward(int n, int nc, const Residual<Real<T>>& residual, T* du, T* const* dU, Real<T>* const* dr,
                                      const T* const* U, const T* dout) {
  for (int t = 0; dr != nullptr && t < residual.nterms; ++t)
    if (dr[t] != nullptr) Linear<T, Isa>::gain_gradient(nc, n, dr[t], dout, nc, U[t], nc);
  for (int i = 0; i < n; ++i)
    for (int c = 0; c < nc; c += width<T>) {
      const long k = static_cast<long>(i) * nc + c;
      const Vec<T> g = load<T>(dout + k);
      store<T>(du + k, load<T>(du + k) + g * residual.a);
      for (int t = 0; t < residual.nterms; ++t)
        if (dU[t] != nullptr) store<T>(dU[t] + k, g * load<Real<T>>(residual.r[t] + c));
    }
}

DPA2_INSTANTIATE(ResidualUpdate)
DPA2_INSTANTIATE_DUAL(ResidualUpdate)

}  // namespace dpa2
