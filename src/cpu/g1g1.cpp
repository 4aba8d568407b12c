#include "cpu/g1g1.hpp"

#include "cpu/simd.hpp"

namespace dpa2 {

using simd::load;
using simd::pad;
using simd::store;
using simd::sum;
using simd::Vec;
using simd::width;

namespace {

/// What goes through W, (n, n1): w_e g1_i * g1_j.
template <class T>
T* products(int n, int n1, const T* g1_i, const T* g1, const int* j, const T* w, Arena& arena) {
  T* product = arena.take<T>(static_cast<long>(n) * n1);
  for (int e = 0; e < n; ++e)
    for (int c = 0; c < n1; c += width<T>)
      store<T>(product + static_cast<long>(e) * n1 + c, load<T>(g1_i + c) * load<T>(g1 + static_cast<long>(j[e]) * n1 + c) * w[e]);
  return product;
}

}  // namespace

template <class T, class Isa>
void G1G1<T, Isa>::forward(int n, T* U, const T* g1_i, const T* g1, const int* j, const Packed<Real<T>>& W, const T* w, Arena& arena) {
  const Arena::Mark mark = arena.mark();
  const int n1 = W.k;
  const T* product = products(n, n1, g1_i, g1, j, w, arena);
  Linear<T, Isa>::run(n, W.n, n1, U, W.n, product, n1, 1, W.data, pad<T>, static_cast<long>(n1) * pad<T>, nullptr, false);
  arena.release(mark);
}

template <class T, class Isa>
void G1G1<T, Isa>::backward(int n, T* dg1_i, T* dg1, const int* scatter, T* dw, Real<T>* dW, const T* dU, const T* g1_i, const T* g1,
                            const int* j, const Packed<Real<T>>& Wt, const T* w, Arena& arena) {
  const Arena::Mark mark = arena.mark();
  const int n1 = Wt.n, n2 = Wt.k;
  T* dy = arena.take<T>(static_cast<long>(n) * n1);
  Linear<T, Isa>::run(n, n1, n2, dy, n1, dU, n2, 1, Wt.data, pad<T>, static_cast<long>(n2) * pad<T>, nullptr, false);
  for (int e = 0; e < n; ++e) {
    const T* dye = dy + static_cast<long>(e) * n1;
    const T* gj = g1 + static_cast<long>(j[e]) * n1;
    T* dgj = dg1 + static_cast<long>(scatter[e]) * n1;
    Vec<T> acc{};
    for (int c = 0; c < n1; c += width<T>) {
      const Vec<T> y = load<T>(dye + c), a = load<T>(g1_i + c), b = load<T>(gj + c);
      acc += y * a * b;
      store<T>(dg1_i + c, load<T>(dg1_i + c) + y * b * w[e]);
      store<T>(dgj + c, load<T>(dgj + c) + y * a * w[e]);
    }
    dw[e] += sum<T>(acc);
  }
  if (dW != nullptr) Linear<T, Isa>::gradient(n1, n2, n, dW, n2, products(n, n1, g1_i, g1, j, w, arena), 1, n1, dU, n2, pad<T>);
  arena.release(mark);
}

DPA2_INSTANTIATE(G1G1)
DPA2_INSTANTIATE_DUAL(G1G1)

}  // namespace dpa2
