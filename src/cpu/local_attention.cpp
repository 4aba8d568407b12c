#include "cpu/local_attention.hpp"

#include "cpu/simd.hpp"
#include "math/attention.hpp"

namespace dpa2 {

using simd::load;
using simd::store;
using simd::sum;
using simd::Vec;
using simd::width;

namespace {

template <class T>
DPA2_INLINE T dot(int n, const T* a, const T* b) {
  Vec<T> acc{};
  for (int c = 0; c < n; c += width<T>) acc += load<T>(a + c) * load<T>(b + c);
  return sum<T>(acc);
}

/// S (nh, n) = scores, P (nh, n) = softmax over the edges of the centre.
template <class T>
void probabilities(int n, int n1, int nh, T* S, T* P, const T* tq, const T* g1, const int* j, const T* w, const T* fall, Real<T> shift,
                   Real<T> npad) {
  for (int h = 0; h < nh; ++h) {
    T* s = S + static_cast<long>(h) * n;
    T* p = P + static_cast<long>(h) * n;
    Real<T> top = math::least_logit(npad, shift);  // needs no tangent: the softmax does not depend on it
    for (int e = 0; e < n; ++e) {
      s[e] = dot(n1, tq + static_cast<long>(h) * n1, g1 + static_cast<long>(j[e]) * n1);
      if constexpr (math::by_fall<T>)
        p[e] = w != nullptr ? math::logit_by_fall(s[e], w[e], fall[e], shift) : s[e];
      else
        p[e] = w != nullptr ? math::logit(s[e], w[e], w[e], shift) : s[e];
      top = math::value_of(p[e]) > top ? math::value_of(p[e]) : top;
    }
    T total = npad * math::exp_of(-shift - top);
    for (int e = 0; e < n; ++e) {
      p[e] = math::exp_of(p[e] - top);
      total += p[e];
    }
    for (int e = 0; e < n; ++e) p[e] /= total;
  }
}

}  // namespace

template <class T, class Isa>
void LocalAttention<T, Isa>::forward(int n, int n1, int nh, T* o, const T* tq, const T* g1, const int* j, const T* w, const T* fall,
                                     Real<T> shift, Real<T> npad, Arena& arena) {
  const Arena::Mark mark = arena.mark();
  T* S = arena.take<T>(static_cast<long>(nh) * n);
  T* P = arena.take<T>(static_cast<long>(nh) * n);
  probabilities(n, n1, nh, S, P, tq, g1, j, w, fall, shift, npad);
  for (int h = 0; h < nh; ++h)
    for (int c = 0; c < n1; c += width<T>) {
      Vec<T> acc{};
      for (int e = 0; e < n; ++e) {
        const T a = P[static_cast<long>(h) * n + e] * (w != nullptr ? w[e] : T(1));
        acc += load<T>(g1 + static_cast<long>(j[e]) * n1 + c) * a;
      }
      store<T>(o + static_cast<long>(h) * n1 + c, acc);
    }
  arena.release(mark);
}

template <class T, class Isa>
void LocalAttention<T, Isa>::backward(int n, int n1, int nh, T* dtq, T* dg1, const int* scatter, T* dw, const T* dout, const T* tq,
                                      const T* g1, const int* j, const T* w, const T* fall, Real<T> shift, Real<T> npad, Arena& arena) {
  const Arena::Mark mark = arena.mark();
  T* S = arena.take<T>(static_cast<long>(nh) * n);
  T* P = arena.take<T>(static_cast<long>(nh) * n);
  T* dA = arena.take<T>(n);
  probabilities(n, n1, nh, S, P, tq, g1, j, w, fall, shift, npad);
  for (long i = 0; i < static_cast<long>(nh) * n1; ++i) dtq[i] = T(0);
  for (int h = 0; h < nh; ++h) {
    const T* s = S + static_cast<long>(h) * n;
    const T* p = P + static_cast<long>(h) * n;
    const T* doh = dout + static_cast<long>(h) * n1;
    const T* tqh = tq + static_cast<long>(h) * n1;
    T* dtqh = dtq + static_cast<long>(h) * n1;
    T inner = 0;
    for (int e = 0; e < n; ++e) {
      dA[e] = dot(n1, doh, g1 + static_cast<long>(j[e]) * n1);
      inner += p[e] * dA[e] * (w != nullptr ? w[e] : T(1));
    }
    for (int e = 0; e < n; ++e) {
      const T we = w != nullptr ? w[e] : T(1);
      T ds, d1, d2;  // of w as it multiplies the value, and the score
      if (w != nullptr) {
        math::logit_backward(false, dA[e], p[e], inner, s[e], we, we, shift, ds, d1, d2);
        dw[e] += d1 + d2;
      } else {
        math::logit_backward(false, dA[e], p[e], inner, s[e], T(1), T(1), shift, ds, d1, d2);
      }
      const T a = p[e] * we;
      const T* gj = g1 + static_cast<long>(j[e]) * n1;
      T* dgj = dg1 + static_cast<long>(scatter[e]) * n1;
      for (int c = 0; c < n1; c += width<T>) {
        store<T>(dtqh + c, load<T>(dtqh + c) + load<T>(gj + c) * ds);
        store<T>(dgj + c, load<T>(dgj + c) + load<T>(doh + c) * a + load<T>(tqh + c) * ds);
      }
    }
  }
  arena.release(mark);
}

DPA2_INSTANTIATE(LocalAttention)
DPA2_INSTANTIATE_DUAL(LocalAttention)

}  // namespace dpa2
