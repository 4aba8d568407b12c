#include "cpu/local_attention.hpp"

#include <algorithm>
#include <type_traits>

#include "cpu/simd_sum.hpp"
#include "math/attention.hpp"

namespace dpa2 {

using simd::load;
using simd::load_sum;
using simd::store;
using simd::store_sum;
using simd::sum;
using simd::Vec;
using simd::width;

namespace {

template <class T>
DPA2_INLINE Sum<T> dot(int n, const T* a, const T* b) {
  Vec<Sum<T>> acc{};
  for (int c = 0; c < n; c += width<Sum<T>>) acc += load_sum<T>(a + c) * load_sum<T>(b + c);
  return sum<Sum<T>>(acc);
}

/// S (nh, n) = scores, P (nh, n) = softmax over the edges of the centre. In float32 both are doubles: their last digits would go
/// into all forces.
template <class T>
void probabilities(int n, int n1, int nh, Sum<T>* S, Sum<T>* P, const T* tq, const T* g1, const int* j, const T* w, const T* fall,
                   Real<Sum<T>> shift, Real<Sum<T>> npad) {
  using A = Sum<T>;
  for (int h = 0; h < nh; ++h) {
    A* s = S + static_cast<long>(h) * n;
    A* p = P + static_cast<long>(h) * n;
    Real<A> top = math::least_logit(npad, shift);  // needs no tangent: the softmax does not depend on it
    for (int e = 0; e < n; ++e) {
      s[e] = dot(n1, tq + static_cast<long>(h) * n1, g1 + static_cast<long>(j[e]) * n1);
      if constexpr (math::by_fall<T>)
        p[e] = w != nullptr ? math::logit_by_fall(s[e], A(w[e]), A(fall[e]), shift) : s[e];
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
  using A = Sum<T>;
  const Arena::Mark mark = arena.mark();
  A* S = arena.take<A>(static_cast<long>(nh) * n);
  A* P = arena.take<A>(static_cast<long>(nh) * n);
  probabilities(n, n1, nh, S, P, tq, g1, j, w, fall, shift, npad);
  for (int h = 0; h < nh; ++h)
    for (int c = 0; c < n1; c += width<A>) {
      Vec<A> acc{};
      for (int e = 0; e < n; ++e) {
        const A a = P[static_cast<long>(h) * n + e] * (w != nullptr ? A(w[e]) : A(1));
        acc += load_sum<T>(g1 + static_cast<long>(j[e]) * n1 + c) * a;
      }
      store_sum<T>(o + static_cast<long>(h) * n1 + c, acc);
    }
  arena.release(mark);
}

template <class T, class Isa>
void LocalAttention<T, Isa>::backward(int n, int n1, int nh, T* dtq, T* dg1, const int* scatter, T* dw, const T* dout, const T* tq,
                                      const T* g1, const int* j, const T* w, const T* fall, Real<T> shift, Real<T> npad, Arena& arena) {
  using A = Sum<T>;
  const Arena::Mark mark = arena.mark();
  A* S = arena.take<A>(static_cast<long>(nh) * n);
  A* P = arena.take<A>(static_cast<long>(nh) * n);
  A* dA = arena.take<A>(n);
  A* scratch = std::is_same_v<T, A> ? nullptr : arena.take<A>(n1);
  probabilities(n, n1, nh, S, P, tq, g1, j, w, fall, shift, npad);
  for (long i = 0; i < static_cast<long>(nh) * n1; ++i) dtq[i] = T(0);
  for (int h = 0; h < nh; ++h) {
    const A* s = S + static_cast<long>(h) * n;
    const A* p = P + static_cast<long>(h) * n;
    const T* doh = dout + static_cast<long>(h) * n1;
    const T* tqh = tq + static_cast<long>(h) * n1;
    A* dtqh = scratch;
    if constexpr (std::is_same_v<T, A>)
      dtqh = dtq + static_cast<long>(h) * n1;
    else
      std::fill_n(dtqh, n1, A(0));
    A inner = 0;
    for (int e = 0; e < n; ++e) {
      dA[e] = dot(n1, doh, g1 + static_cast<long>(j[e]) * n1);
      inner += p[e] * dA[e] * (w != nullptr ? A(w[e]) : A(1));
    }
    for (int e = 0; e < n; ++e) {
      const A we = w != nullptr ? A(w[e]) : A(1);
      A ds, d1, d2;  // of w as it multiplies the value, and the score
      if (w != nullptr) {
        math::logit_backward(false, dA[e], p[e], inner, s[e], we, we, Real<A>(shift), ds, d1, d2);
        dw[e] += static_cast<T>(d1 + d2);
      } else {
        math::logit_backward(false, dA[e], p[e], inner, s[e], A(1), A(1), Real<A>(shift), ds, d1, d2);
      }
      const A a = p[e] * we;
      const T* gj = g1 + static_cast<long>(j[e]) * n1;
      T* dgj = dg1 + static_cast<long>(scatter[e]) * n1;
      for (int c = 0; c < n1; c += width<A>) {
        store<A>(dtqh + c, load<A>(dtqh + c) + load_sum<T>(gj + c) * ds);
        store_sum<T>(dgj + c, load_sum<T>(dgj + c) + load_sum<T>(doh + c) * a + load_sum<T>(tqh + c) * ds);
      }
    }
    if constexpr (!std::is_same_v<T, A>)
      for (int c = 0; c < n1; c += width<A>) store_sum<T>(dtq + static_cast<long>(h) * n1 + c, load<A>(dtqh + c));
  }
  arena.release(mark);
}

DPA2_INSTANTIATE(LocalAttention)
DPA2_INSTANTIATE_DUAL(LocalAttention)

}  // namespace dpa2
