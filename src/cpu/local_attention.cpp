#include "cpu/local_attention.hpp"

#include <algorithm>

#include "cpu/simd_wide.hpp"
#include "math/attention.hpp"

namespace dpa2 {

using simd::load;
using simd::load_wide;
using simd::store;
using simd::store_wide;
using simd::sum;
using simd::Vec;
using simd::width;

namespace {

template <class T>
DPA2_INLINE Wide<T> dot(int n, const T* a, const T* b) {
  Vec<Wide<T>> acc{};
  for (int c = 0; c < n; c += width<Wide<T>>) acc += load_wide<T>(a + c) * load_wide<T>(b + c);
  return sum<Wide<T>>(acc);
}

/// S (nh, n) = scores, P (nh, n) = softmax over the edges of the centre. Of float32 both are doubles: from
/// layer to layer their last digits grow.
template <class T>
void probabilities(int n, int n1, int nh, Wide<T>* S, Wide<T>* P, const T* tq, const T* g1, const int* j, const T* w, const T* fall,
                   Real<Wide<T>> shift, Real<Wide<T>> npad) {
  using A = Wide<T>;
  for (int h = 0; h < nh; ++h) {
    A* s = S + static_cast<long>(h) * n;
    A* p = P + static_cast<long>(h) * n;
    Real<A> top = math::least_logit(npad, shift);  // needs no tangent: the softmax does not depend on it
    for (int e = 0; e < n; ++e) {
      s[e] = dot(n1, tq + static_cast<long>(h) * n1, g1 + static_cast<long>(j[e]) * n1);
      if constexpr (by_fall<T>)
        p[e] = w != nullptr ? math::logit_by_fall(s[e], wide(w[e]), wide(fall[e]), shift) : s[e];
      else
        p[e] = w != nullptr ? math::logit(s[e], w[e], w[e], shift) : s[e];
      top = math::value_of(p[e]) > top ? math::value_of(p[e]) : top;
    }
    A total = npad * math::exp_of(-shift - top);
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
  using A = Wide<T>;
  const Arena::Mark mark = arena.mark();
  A* S = arena.take<A>(static_cast<long>(nh) * n);
  A* P = arena.take<A>(static_cast<long>(nh) * n);
  probabilities(n, n1, nh, S, P, tq, g1, j, w, fall, shift, npad);
  for (int h = 0; h < nh; ++h)
    for (int c = 0; c < n1; c += width<A>) {
      Vec<A> acc{};
      for (int e = 0; e < n; ++e) {
        const A a = P[static_cast<long>(h) * n + e] * (w != nullptr ? wide(w[e]) : A(1));
        acc += load_wide<T>(g1 + static_cast<long>(j[e]) * n1 + c) * a;
      }
      store_wide<T>(o + static_cast<long>(h) * n1 + c, acc);
    }
  arena.release(mark);
}

template <class T, class Isa>
void LocalAttention<T, Isa>::backward(int n, int n1, int nh, T* dtq, T* dg1, const int* scatter, T* dw, const T* dout, const T* tq,
                                      const T* g1, const int* j, const T* w, const T* fall, Real<T> shift, Real<T> npad, Arena& arena) {
  using A = Wide<T>;
  const Arena::Mark mark = arena.mark();
  A* S = arena.take<A>(static_cast<long>(nh) * n);
  A* P = arena.take<A>(static_cast<long>(nh) * n);
  A* dA = arena.take<A>(n);
  A* sums = is_wide<T> ? nullptr : arena.take<A>(n1);
  probabilities(n, n1, nh, S, P, tq, g1, j, w, fall, shift, npad);
  for (int h = 0; h < nh; ++h) {
    const A* s = S + static_cast<long>(h) * n;
    const A* p = P + static_cast<long>(h) * n;
    const T* doh = dout + static_cast<long>(h) * n1;
    const T* tqh = tq + static_cast<long>(h) * n1;
    A* dtqh = sums;
    if constexpr (is_wide<T>) dtqh = dtq + static_cast<long>(h) * n1;
    std::fill_n(dtqh, n1, A(0));
    A inner = 0;
    for (int e = 0; e < n; ++e) {
      dA[e] = dot(n1, doh, g1 + static_cast<long>(j[e]) * n1);
      inner += p[e] * dA[e] * (w != nullptr ? wide(w[e]) : A(1));
    }
    for (int e = 0; e < n; ++e) {
      const A we = w != nullptr ? wide(w[e]) : A(1);
      A ds, d1, d2;  // of w as it multiplies the value, and the score
      if (w != nullptr) {
        math::logit_backward(false, dA[e], p[e], inner, s[e], we, we, Real<A>(shift), ds, d1, d2);
        dw[e] += narrow<T>(d1 + d2);
      } else {
        math::logit_backward(false, dA[e], p[e], inner, s[e], A(1), A(1), Real<A>(shift), ds, d1, d2);
      }
      const A a = p[e] * we;
      const T* gj = g1 + static_cast<long>(j[e]) * n1;
      T* dgj = dg1 + static_cast<long>(scatter[e]) * n1;
      for (int c = 0; c < n1; c += width<A>) {
        store<A>(dtqh + c, load<A>(dtqh + c) + load_wide<T>(gj + c) * ds);
        store_wide<T>(dgj + c, load_wide<T>(dgj + c) + load_wide<T>(doh + c) * a + load_wide<T>(tqh + c) * ds);
      }
    }
    if constexpr (!is_wide<T>)
      for (int c = 0; c < n1; c += width<A>) store_wide<T>(dtq + static_cast<long>(h) * n1 + c, load<A>(dtqh + c));
  }
  arena.release(mark);
}

DPA2_INSTANTIATE(LocalAttention)
DPA2_INSTANTIATE_DUAL(LocalAttention)

}  // namespace dpa2
