#include "cpu/g2_embed.hpp"

#include "cpu/linear.hpp"
#include "cpu/simd.hpp"

namespace dpa2 {

using simd::load;
using simd::splat;
using simd::store;
using simd::sum;
using simd::Vec;
using simd::width;

namespace {

template <class T>
void preactivation(int n, int n2, T* z, const T* x, const Real<T>* w, const Real<T>* b) {
  using R = Real<T>;
  for (int e = 0; e < n; ++e)
    for (int c = 0; c < n2; c += width<T>) store<T>(z + static_cast<long>(e) * n2 + c, splat<T>(x[e]) * load<R>(w + c) + load<R>(b + c));
}

}  // namespace

template <class T, class Isa>
void G2Embed<T, Isa>::forward(int n, int n2, T* g2, const T* x, const Real<T>* w, const Real<T>* b, const ActivationSpec<Real<T>>& act) {
  preactivation(n, n2, g2, x, w, b);
  Activate<T, Isa>::forward(act, static_cast<long>(n) * n2, g2, g2);
}

template <class T, class Isa>
void G2Embed<T, Isa>::backward(int n, int n2, T* dx, Real<T>* dw, Real<T>* db, const T* dg2, const T* x, const Real<T>* w, const Real<T>* b,
                               const ActivationSpec<Real<T>>& act, Arena& arena) {
  const Arena::Mark mark = arena.mark();
  const long size = static_cast<long>(n) * n2;
  T* y = arena.take<T>(size);
  T* dphi = arena.take<T>(size);
  preactivation(n, n2, y, x, w, b);
  Activate<T, Isa>::forward_grad(act, size, y, dphi, y);
  for (int e = 0; dx != nullptr && e < n; ++e) {
    Vec<T> acc{};
    for (int c = 0; c < n2; c += width<T>) {
      const long k = static_cast<long>(e) * n2 + c;
      acc += load<T>(dg2 + k) * load<T>(dphi + k) * load<Real<T>>(w + c);
    }
    dx[e] = sum<T>(acc);
  }
  if (dw != nullptr || db != nullptr) {
    T* dz = dphi;
    Activate<T, Isa>::backward(size, dz, dg2, dphi);
    if (dw != nullptr) Linear<T, Isa>::gradient(1, n2, n, dw, n2, x, n, 1, dz, n2, simd::pad<T>);
    if (db != nullptr) Linear<T, Isa>::bias_gradient(n2, n, db, dz, n2);
  }
  arena.release(mark);
}

DPA2_INSTANTIATE(G2Embed)
DPA2_INSTANTIATE_DUAL(G2Embed)

}  // namespace dpa2
