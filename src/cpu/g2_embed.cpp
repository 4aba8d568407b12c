#include "cpu/g2_embed.hpp"

#include "cpu/simd.hpp"

namespace dpa2 {

using simd::load;
using simd::store;
using simd::sum;
using simd::Vec;
using simd::width;

namespace {

template <class T>
void preactivation(int n, int n2, T* z, const T* x, const T* w, const T* b) {
  for (int e = 0; e < n; ++e)
    for (int c = 0; c < n2; c += width<T>) store<T>(z + static_cast<long>(e) * n2 + c, load<T>(w + c) * x[e] + load<T>(b + c));
}

}  // namespace

template <class T, class Isa>
void G2Embed<T, Isa>::forward(int n, int n2, T* g2, const T* x, const T* w, const T* b, const ActivationSpec<T>& act) {
  preactivation(n, n2, g2, x, w, b);
  Activate<T, Isa>::forward(act, static_cast<long>(n) * n2, g2, g2);
}

template <class T, class Isa>
void G2Embed<T, Isa>::backward(int n, int n2, T* dx, const T* dg2, const T* x, const T* w, const T* b, const ActivationSpec<T>& act,
                               Arena& arena) {
  const Arena::Mark mark = arena.mark();
  const long size = static_cast<long>(n) * n2;
  T* y = arena.take<T>(size);
  T* dphi = arena.take<T>(size);
  preactivation(n, n2, y, x, w, b);
  Activate<T, Isa>::forward_grad(act, size, y, dphi, y);
  for (int e = 0; e < n; ++e) {
    Vec<T> acc{};
    for (int c = 0; c < n2; c += width<T>) {
      const long k = static_cast<long>(e) * n2 + c;
      acc += load<T>(dg2 + k) * load<T>(dphi + k) * load<T>(w + c);
    }
    dx[e] = sum<T>(acc);
  }
  arena.release(mark);
}

DPA2_INSTANTIATE(G2Embed)

}  // namespace dpa2
