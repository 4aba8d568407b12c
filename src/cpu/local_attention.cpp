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

/// Rows (n1) by edge: those of an index among the atoms, or copies.
template <class A>
struct Rows {
  A* first;
  const int* index;  ///< null of copies
  long n1;

  DPA2_INLINE A* operator[](int e) const { return first + (index != nullptr ? index[e] : e) * n1; }
};

template <class T>
DPA2_INLINE void widen(long n, Wide<T>* y, const T* x) {
  for (long c = 0; c < n; c += width<Wide<T>>) store<Wide<T>>(y + c, load_wide<T>(x + c));
}

/// Numbers as the sums are made of them: themselves, or of floats a copy in double.
template <class T>
const Wide<T>* widened(long n, const T* x, Arena& arena) {
  if constexpr (is_wide<T>) {
    return x;
  } else {
    Wide<T>* copy = arena.take<Wide<T>>(n);
    widen(n, copy, x);
    return copy;
  }
}

/// The g1 of the neighbours. Of floats all heads use one copy in double.
template <class T>
Rows<const Wide<T>> neighbours(int n, int n1, const T* g1, const int* j, Arena& arena) {
  if constexpr (is_wide<T>) {
    return {g1, j, n1};
  } else {
    Wide<T>* copies = arena.take<Wide<T>>(static_cast<long>(n) * n1);
    for (int e = 0; e < n; ++e) widen(n1, copies + static_cast<long>(e) * n1, g1 + static_cast<long>(j[e]) * n1);
    return {copies, nullptr, n1};
  }
}

/// What multiplies the value of each edge: the switch, or 1.
template <class T>
const Wide<T>* factors(int n, const T* w, Arena& arena) {
  Wide<T>* f = arena.take<Wide<T>>(n);
  for (int e = 0; e < n; ++e) f[e] = w != nullptr ? wide(w[e]) : Wide<T>(1);
  return f;
}

template <class A>
DPA2_INLINE A dot(int n, const A* a, const A* b) {
  Vec<A> acc{};
  for (int c = 0; c < n; c += width<A>) acc += load<A>(a + c) * load<A>(b + c);
  return sum<A>(acc);
}

/// S (nh, n) = scores, P (nh, n) = softmax over the edges of the centre. Of float32 both are doubles: from layer to layer their last
/// digits grow.
template <class T>
void probabilities(int n, int nh, Wide<T>* S, Wide<T>* P, const Wide<T>* tq, const Rows<const Wide<T>>& g1, const T* w, const T* fall,
                   Real<Wide<T>> shift, Real<Wide<T>> npad) {
  using A = Wide<T>;
  const int n1 = static_cast<int>(g1.n1);
  for (int h = 0; h < nh; ++h) {
    A* s = S + static_cast<long>(h) * n;
    A* p = P + static_cast<long>(h) * n;
    Real<A> top = math::least_logit(npad, shift);  // needs no tangent: the softmax does not depend on it
    for (int e = 0; e < n; ++e) {
      s[e] = dot<A>(n1, tq + h * g1.n1, g1[e]);
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
  const Rows<const A> rows = neighbours(n, n1, g1, j, arena);
  const A* factor = factors(n, w, arena);
  probabilities(n, nh, S, P, widened(static_cast<long>(nh) * n1, tq, arena), rows, w, fall, shift, npad);
  for (int h = 0; h < nh; ++h) {
    A* a = P + static_cast<long>(h) * n;
    for (int e = 0; e < n; ++e) a[e] = a[e] * factor[e];
    for (int c = 0; c < n1; c += width<A>) {
      Vec<A> acc{};
      for (int e = 0; e < n; ++e) acc += load<A>(rows[e] + c) * a[e];
      store_wide<T>(o + static_cast<long>(h) * n1 + c, acc);
    }
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
  A* ds = arena.take<A>(n);
  const Rows<const A> rows = neighbours(n, n1, g1, j, arena);
  const A* factor = factors(n, w, arena);
  const A* queries = widened(static_cast<long>(nh) * n1, tq, arena);
  const A* given = widened(static_cast<long>(nh) * n1, dout, arena);
  Rows<A> sums{};  // of the gradients of g1 over heads
  if constexpr (is_wide<T>) {
    sums = {dg1, scatter, n1};
  } else {
    sums = {arena.take<A>(static_cast<long>(n) * n1), nullptr, n1};
    std::fill_n(sums.first, static_cast<long>(n) * n1, A(0));
  }
  probabilities(n, nh, S, P, queries, rows, w, fall, shift, npad);
  for (int h = 0; h < nh; ++h) {
    const A* s = S + static_cast<long>(h) * n;
    A* p = P + static_cast<long>(h) * n;
    const A* doh = given + static_cast<long>(h) * n1;
    const A* tqh = queries + static_cast<long>(h) * n1;
    A inner = 0;
    for (int e = 0; e < n; ++e) {
      dA[e] = dot<A>(n1, doh, rows[e]);
      inner += p[e] * dA[e] * factor[e];
    }
    for (int e = 0; e < n; ++e) {
      const A we = factor[e];
      A d1, d2;  // of w as it multiplies the value, and the score
      if (w != nullptr) {
        math::logit_backward(false, dA[e], p[e], inner, s[e], we, we, Real<A>(shift), ds[e], d1, d2);
        dw[e] += narrow<T>(d1 + d2);
      } else {
        math::logit_backward(false, dA[e], p[e], inner, s[e], A(1), A(1), Real<A>(shift), ds[e], d1, d2);
      }
      p[e] = p[e] * factor[e];
    }
    for (int c = 0; c < n1; c += width<A>) {
      Vec<A> acc{};
      for (int e = 0; e < n; ++e) acc += load<A>(rows[e] + c) * ds[e];
      store_wide<T>(dtq + static_cast<long>(h) * n1 + c, acc);
    }
    for (int e = 0; e < n; ++e) {
      A* d = sums[e];
      for (int c = 0; c < n1; c += width<A>) store<A>(d + c, load<A>(d + c) + load<A>(doh + c) * p[e] + load<A>(tqh + c) * ds[e]);
    }
  }
  if constexpr (!is_wide<T>)
    for (int e = 0; e < n; ++e) {
      T* d = dg1 + static_cast<long>(scatter[e]) * n1;
      for (int c = 0; c < n1; c += width<A>) store_wide<T>(d + c, load_wide<T>(d + c) + load<A>(sums[e] + c));
    }
  arena.release(mark);
}

DPA2_INSTANTIATE(LocalAttention)
DPA2_INSTANTIATE_DUAL(LocalAttention)

}  // namespace dpa2
