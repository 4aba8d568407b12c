#include "cpu/pair_attention.hpp"

#include <type_traits>

#include "cpu/simd.hpp"
#include "math/attention.hpp"
#include "math/wide.hpp"

namespace dpa2 {

using simd::load;
using simd::pad;
using simd::splat;
using simd::store;
using simd::sum;
using simd::Vec;
using simd::width;

namespace {

/// Lanes that are computed: up to the end of the last vector in use.
template <class T>
int lanes(int n) {
  return (n + width<T> - 1) / width<T> * width<T>;
}

/// y (columns, ldy) = x (rows, ldx)^T; lanes rows..m of y are zero.
template <class T>
void transpose(int rows, int columns, int m, T* y, long ldy, const T* x, long ldx) {
  constexpr int W = width<T>;
  int r = 0;
  for (; r + W <= rows; r += W) {
    int c = 0;
    for (; c + W <= columns; c += W) {
      Vec<T> square[W];
#pragma GCC unroll 16
      for (int i = 0; i < W; ++i) square[i] = load<T>(x + (r + i) * ldx + c);
      simd::transpose<T>(square);
#pragma GCC unroll 16
      for (int i = 0; i < W; ++i) store<T>(y + (c + i) * ldy + r, square[i]);
    }
    for (; c < columns; ++c)
      for (int i = 0; i < W; ++i) y[c * ldy + r + i] = x[(r + i) * ldx + c];
  }
  for (int c = 0; c < columns; ++c)
    for (int i = r; i < m; ++i) y[c * ldy + i] = i < rows ? x[i * ldx + c] : T(0);
}

/// y (n, n2) = x (n, n2) times the block of one head of packed weights.
template <class T, class Isa>
void map_head(const PairAttentionParams<Real<T>>& p, int h, int n, T* y, const T* x, const Packed<Real<T>>& w) {
  Linear<T, Isa>::run(n, p.n2, p.n2, y, p.n2, x, p.n2, 1, w.data + static_cast<long>(h) * p.n2 * p.n2, pad<T>,
                      static_cast<long>(p.n2) * pad<T>, nullptr, false);
}

/// y (n, n2) += x (n, nh*n2), head beside head, times transposed weights of all heads.
template <class T, class Isa>
void map_back(int n, T* y, const T* x, const Packed<Real<T>>& w) {
  Linear<T, Isa>::run(n, w.n, w.k, y, w.n, x, w.k, 1, w.data, pad<T>, static_cast<long>(w.k) * pad<T>, nullptr, true);
}

/// exp(P - top) of N / NV keys, in place; total += their sum.
template <class T, int NV, int N>
DPA2_INLINE void raise(long ld, T* P, const Vec<Real<T>> (&top)[NV], Vec<T> (&total)[NV]) {
  Vec<T> e[N];
#pragma GCC unroll 4
  for (int v = 0; v < N; ++v) e[v] = load<T>(P + v / NV * ld + v % NV * width<T>) - top[v % NV];
  simd::exp_falling<T, N>(e);
#pragma GCC unroll 4
  for (int v = 0; v < N; ++v) {
    store<T>(P + v / NV * ld + v % NV * width<T>, e[v]);
    total[v % NV] += e[v];
  }
}

/// The switch of pairs from what c2 has of it.
template <class T>
DPA2_INLINE Vec<T> switched(const Vec<T>& kept) {
  if constexpr (by_fall<T>)
    return Real<T>(1) - kept;
  else
    return kept;
}

/// NV vectors of lanes of the softmax, which begin at the pointers. Sizes come by value: what a store might change is loaded again.
/// The largest logit only keeps exp within range, so that it needs no tangent: the softmax does not depend on it.
template <class T, bool gate, int NV>
void softmax_strip(int n, long m, long ld, Real<T> shift, Real<T> npad, const T* c1, const T* c2, const T* S, T* P, T* Rt) {
  using R = Real<T>;
  Vec<R> top[NV], pads[NV];
  Vec<T> total[NV];
#pragma GCC unroll 2
  for (int v = 0; v < NV; ++v) top[v] = splat<R>(math::least_logit(npad, shift));
  for (int k = 0; k < n; ++k)
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) {
      const long pair = k * m + v * width<T>, at = k * ld + v * width<T>;
      const Vec<T> kept = load<T>(c2 + pair);
      const Vec<T> factor = gate ? load<T>(c1 + pair) : switched<T>(kept);
      Vec<T> b;
      if constexpr (by_fall<T>)
        b = math::logit_by_fall(load<T>(S + at), factor, kept, shift);
      else
        b = math::logit(load<T>(S + at), factor, kept, shift);
      store<T>(P + at, b);
      top[v] = simd::max<R>(top[v], simd::value_of<T>(b));
    }
#pragma GCC unroll 2
  for (int v = 0; v < NV; ++v) pads[v] = -shift - top[v];
  simd::exp_falling<R, NV>(pads);
#pragma GCC unroll 2
  for (int v = 0; v < NV; ++v) total[v] = simd::constant<T>(pads[v] * npad);
  int key = 0;
  constexpr int keys = 4 / NV;
  for (; key + keys <= n; key += keys) raise<T, NV, 4>(ld, P + key * ld, top, total);
  for (; key < n; ++key) raise<T, NV, NV>(ld, P + key * ld, top, total);
#pragma GCC unroll 2
  for (int v = 0; v < NV; ++v) total[v] = R(1) / total[v];
  for (int k = 0; k < n; ++k)
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) {
      const long at = k * ld + v * width<T>;
      const Vec<T> probability = load<T>(P + at) * total[v];
      store<T>(P + at, probability);
      store<T>(Rt + at, probability * load<T>(c1 + k * m + v * width<T>));
    }
}

/// Vectors of lanes that are at work at once: a line of the cache is used when it is there. One of dual numbers is as long as two.
template <class T>
constexpr int strip_vectors = is_dual<T> ? 1 : 2;

/// f(NV, j) for the strips of NV vectors that begin at the lanes j and cover n of them.
template <class T, class F>
DPA2_INLINE void strips(int n, F f) {
  int j = 0;
  if constexpr (strip_vectors<T> == 2)
    for (; j + width<T> < n; j += 2 * width<T>) f(std::integral_constant<int, 2>(), j);
  for (; j < n; j += width<T>) f(std::integral_constant<int, 1>(), j);
}

/// P (n, ld) = softmax of one head over the keys, Rt = P c1; P may be S or Rt (then it is not kept).
template <class T, bool gate>
void softmax(const PairAttentionInput<T>& in, Real<T> shift, long ld, const T* S, T* P, T* Rt) {
  strips<T>(in.n, [&](auto vectors, int j) {
    softmax_strip<T, gate, vectors()>(in.n, in.m, ld, shift, in.npad, in.c1 + j, in.c2 + j, S + j, P + j, Rt + j);
  });
}

/// NV vectors of lanes of the softmax's backward, which begin at the pointers; `first` writes dc1 and dc2 instead of adding to them.
template <class T, bool gate, int NV>
void softmax_backward_strip(bool first, int n, long m, long ld, Real<T> shift, const T* c1, const T* c2, T* dS, T* dc1, T* dc2, const T* S,
                            const T* P, const T* Rt) {
  Vec<T> inner[NV] = {};
  for (int k = 0; k < n; ++k)
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) inner[v] += load<T>(Rt + k * ld + v * width<T>) * load<T>(dS + k * ld + v * width<T>);
  for (int k = 0; k < n; ++k)
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) {
      const long pair = k * m + v * width<T>, at = k * ld + v * width<T>;
      Vec<T> ds, g1, g2;
      math::logit_backward(gate, load<T>(dS + at), load<T>(P + at), inner[v], load<T>(S + at), load<T>(c1 + pair),
                           switched<T>(load<T>(c2 + pair)), shift, ds, g1, g2);
      store<T>(dS + at, ds);
      if (!first) {
        g1 += load<T>(dc1 + pair);
        g2 += load<T>(dc2 + pair);
      }
      store<T>(dc1 + pair, g1);
      store<T>(dc2 + pair, g2);
    }
}

/// The backward of the softmax of one head: dS (n, ld) over dRt; dc1, dc2 (n, m) = of the first head, += of the others.
template <class T, bool gate>
void softmax_backward(bool first, const PairAttentionInput<T>& in, Real<T> shift, long ld, T* dS, T* dc1, T* dc2, const T* S, const T* P,
                      const T* Rt) {
  strips<T>(in.n, [&](auto vectors, int j) {
    softmax_backward_strip<T, gate, vectors()>(first, in.n, in.m, ld, shift, in.c1 + j, in.c2 + j, dS + j, dc1 + j, dc2 + j, S + j, P + j,
                                               Rt + j);
  });
}

/// What the heads of a centre have in common, and the arrays of the one at work: they stay in the first caches.
template <class T, class Isa>
struct Heads {
  Heads(const PairAttentionParams<Real<T>>& params, const PairAttentionInput<T>& input, Arena& arena)
      : p(params), in(input), used(lanes<T>(input.n)), ld(used * sizeof(T) / pad_bytes % 16 == 0 ? used + width<T> : used) {
    g2t = arena.take<T>(static_cast<long>(p.n2) * in.m);
    U = arena.take<T>(rows());
    S = arena.take<T>(in.n * ld);
    transpose(in.n, p.n2, in.m, g2t, in.m, in.g2, p.n2);
  }
  long rows() const { return static_cast<long>(in.n) * p.n2; }
  /// U = g2 A, S = U g2^T, P = softmax, Rt = P c1
  void scores(int h, T* P, T* Rt) const {
    map_head<T, Isa>(p, h, in.n, U, in.g2, p.A);
    Linear<T, Isa>::run(in.n, used, p.n2, S, ld, U, p.n2, 1, g2t, in.m, pad<T>, nullptr, false);
    if (p.gate)
      softmax<T, true>(in, p.shift, ld, S, P, Rt);
    else
      softmax<T, false>(in, p.shift, ld, S, P, Rt);
  }
  const PairAttentionParams<Real<T>>& p;
  const PairAttentionInput<T>& in;
  int used;        ///< lanes with a query, up to a full vector
  long ld;         ///< of S, P, Rt: off multiples of 1 KiB, or the rows would fall on the same few sets of the cache
  T *g2t, *U, *S;  ///< (n2, m), (n, n2), (n, ld)
};

/// lane (4, m) = the columns of h2, and sw or 1; zero on the lanes n..m.
template <class T>
void to_lanes(int n, int m, bool smooth, T* lane, const T* h2, const T* sw) {
  transpose(n, 3, m, lane, m, h2, 3);
  for (int j = 0; j < m; ++j) lane[3 * m + j] = j >= n ? T(0) : smooth ? sw[j] : T(1);
}

/// h2_j . h for a vector of lanes j.
template <class T>
DPA2_INLINE Vec<T> products(int m, const T* lane, const T* h) {
  return load<T>(lane) * h[0] + load<T>(lane + m) * h[1] + load<T>(lane + 2 * m) * h[2];
}

}  // namespace

template <class T, class Isa>
void PairAttention<T, Isa>::factors(int n, int m, bool smooth, T* c1, T* c2, const T* h2, const T* sw, const T* fall, Arena& arena) {
  const Arena::Mark mark = arena.mark();
  T* lane = arena.take<T>(5L * m);
  to_lanes(n, m, smooth, lane, h2, sw);
  if constexpr (by_fall<T>)
    for (int j = 0; j < m; ++j) lane[4 * m + j] = j >= n ? T(1) : smooth ? fall[j] : T(0);
  for (int k = 0; k < n; ++k) {
    T* r1 = c1 + static_cast<long>(k) * m;
    T* r2 = c2 + static_cast<long>(k) * m;
    const T wk = smooth ? sw[k] : T(1);
    for (int j = 0; j < m; j += width<T>) {
      const Vec<T> ww = load<T>(lane + 3 * m + j) * wk;
      if constexpr (by_fall<T>)
        store<T>(r2 + j, smooth ? load<T>(lane + 4 * m + j) * wk + fall[k] : load<T>(lane + 4 * m + j));
      else
        store<T>(r2 + j, ww);
      store<T>(r1 + j, products(m, lane + j, h2 + 3 * k) * ww);
    }
  }
  arena.release(mark);
}

template <class T, class Isa>
void PairAttention<T, Isa>::factors_backward(int n, int m, bool smooth, T* dh2, T* dsw, const T* dc1, const T* dc2, const T* h2,
                                             const T* sw, Arena& arena) {
  const Arena::Mark mark = arena.mark();
  T* lane = arena.take<T>(4L * m);
  T* dlane = arena.take<T>(4L * m);
  to_lanes(n, m, smooth, lane, h2, sw);
  for (int c = 0; c < 4 * m; ++c) dlane[c] = T(0);
  for (int k = 0; k < n; ++k) {
    const T* r1 = dc1 + static_cast<long>(k) * m;
    const T* r2 = dc2 + static_cast<long>(k) * m;
    const T wk = smooth ? sw[k] : T(1);
    Vec<T> own[4] = {};
    for (int j = 0; j < n; j += width<T>) {
      const Vec<T> wj = load<T>(lane + 3 * m + j), g1 = load<T>(r1 + j);
      const Vec<T> dhh = g1 * wj * wk, dss = g1 * products(m, lane + j, h2 + 3 * k) + load<T>(r2 + j);
      for (int x = 0; x < 3; ++x) {
        own[x] += dhh * load<T>(lane + x * m + j);
        store<T>(dlane + x * m + j, load<T>(dlane + x * m + j) + dhh * h2[3 * k + x]);
      }
      own[3] += dss * wj;
      store<T>(dlane + 3 * m + j, load<T>(dlane + 3 * m + j) + dss * wk);
    }
    for (int x = 0; x < 3; ++x) dh2[3 * k + x] += sum<T>(own[x]);
    if (smooth) dsw[k] += sum<T>(own[3]);
  }
  for (int j = 0; j < n; ++j) {
    for (int x = 0; x < 3; ++x) dh2[3 * j + x] += dlane[x * m + j];
    if (smooth) dsw[j] += dlane[3 * m + j];
  }
  arena.release(mark);
}

template <class T, class Isa>
void PairAttention<T, Isa>::forward(const PairAttentionParams<Real<T>>& p, const PairAttentionInput<T>& in, T* z, T* dh, Arena& arena) {
  const int n = in.n, n2 = p.n2;
  if (n == 0) return;
  const Arena::Mark mark = arena.mark();
  const Heads<T, Isa> heads(p, in, arena);
  T* V = z != nullptr ? arena.take<T>(heads.rows()) : nullptr;
  for (int j = 0; dh != nullptr && j < 3 * n; ++j) dh[j] = T(0);
  for (int h = 0; h < p.nh; ++h) {
    heads.scores(h, heads.S, heads.S);
    const T* Rt = heads.S;
    if (z != nullptr) {
      map_head<T, Isa>(p, h, n, V, in.g2, p.B);
      Linear<T, Isa>::run(n, n2, n, z, n2, Rt, 1, heads.ld, V, n2, pad<T>, p.bias, h > 0);
    }
    if (dh != nullptr)
      for (int k = 0; k < n; ++k)
        for (int j = 0; j < n; ++j)
          for (int x = 0; x < 3; ++x) dh[3 * j + x] += p.h2_weight[h] * Rt[k * heads.ld + j] * in.h2[3 * k + x];
  }
  arena.release(mark);
}

template <class T, class Isa>
void PairAttention<T, Isa>::backward(const PairAttentionParams<Real<T>>& p, const PairAttentionInput<T>& in, T* dg2, T* dh2, T* dc1, T* dc2,
                                     const PairAttentionGradient<Real<T>>* g, const T* dz, const T* ddh, Arena& arena) {
  const int n = in.n, m = in.m, nh = p.nh, n2 = p.n2;
  if (n == 0) return;
  const Arena::Mark mark = arena.mark();
  const Heads<T, Isa> heads(p, in, arena);
  const long ld = heads.ld, all = static_cast<long>(nh) * n2;
  T *P = arena.take<T>(n * ld), *Rt = arena.take<T>(n * ld), *dS = arena.take<T>(n * ld);
  T* dU = arena.take<T>(n * all);
  T* dzt = arena.take<T>(static_cast<long>(n2) * m);
  T* mapped = arena.take<T>(static_cast<long>(n2) * m);
  T* W = arena.take<T>(heads.rows());
  T* dV = g != nullptr && g->B != nullptr && dz != nullptr ? arena.take<T>(n * all) : nullptr;
  if (dz != nullptr) transpose(n, n2, m, dzt, m, dz, n2);
  for (int h = 0; h < nh; ++h) {
    heads.scores(h, P, Rt);
    if (dV != nullptr) {
      // The gradient of the values, dV = Rt dz, serves for that of the weights and, at the end, for that of g2.
      map_head<T, Isa>(p, h, n, mapped, in.g2, p.B);
      Linear<T, Isa>::run(n, heads.used, n2, dS, ld, mapped, n2, 1, dzt, m, pad<T>, nullptr, false);
      Linear<T, Isa>::run(n, n2, n, dV + h * static_cast<long>(n2), all, Rt, ld, 1, dz, n2, pad<T>, nullptr, false);
    } else if (dz != nullptr) {
      // Less work without dV: dz mapped back by the head, W = dz B^T, serves for dRt = g2 W^T and for the gradient of g2.
      Linear<T, Isa>::run(n2, heads.used, n2, mapped, m, p.B_stack + h * static_cast<long>(n2) * n2, n2, 1, dzt, m, pad<T>, nullptr, false);
      Linear<T, Isa>::run(n, heads.used, n2, dS, ld, in.g2, n2, 1, mapped, m, pad<T>, nullptr, false);
      transpose(n2, n, n2, W, n2, mapped, m);
      Linear<T, Isa>::run(n, n2, n, dg2, n2, Rt, ld, 1, W, n2, pad<T>, nullptr, true);
    } else {
      for (long i = 0; i < n * ld; ++i) dS[i] = T(0);
    }
    if (ddh != nullptr)
      for (int k = 0; k < n; ++k) {
        const Real<T> w = p.h2_weight[h];
        T own[3] = {0, 0, 0};
        for (int j = 0; j < n; ++j) {
          T dot = 0;
          for (int x = 0; x < 3; ++x) {
            dot += ddh[3 * j + x] * in.h2[3 * k + x];
            own[x] += Rt[k * ld + j] * ddh[3 * j + x];
          }
          dS[k * ld + j] += w * dot;
        }
        for (int x = 0; x < 3; ++x) dh2[3 * k + x] += w * own[x];
        if (g != nullptr && g->h2 != nullptr)
          for (int x = 0; x < 3; ++x) g->h2[h] += math::gradient_of(own[x] * in.h2[3 * k + x]);
      }
    if (p.gate)
      softmax_backward<T, true>(h == 0, in, p.shift, ld, dS, dc1, dc2, heads.S, P, Rt);
    else
      softmax_backward<T, false>(h == 0, in, p.shift, ld, dS, dc1, dc2, heads.S, P, Rt);
    Linear<T, Isa>::run(n, n2, n, dg2, n2, dS, 1, ld, heads.U, n2, pad<T>, nullptr, true);
    Linear<T, Isa>::run(n, n2, n, dU + h * static_cast<long>(n2), all, dS, ld, 1, in.g2, n2, pad<T>, nullptr, false);
  }
  map_back<T, Isa>(n, dg2, dU, p.At);
  if (dV != nullptr) map_back<T, Isa>(n, dg2, dV, p.Bt);
  if (g != nullptr && g->A != nullptr) Linear<T, Isa>::gradient(n2, nh * n2, n, g->A, all, in.g2, 1, n2, dU, all, pad<T>);
  if (dV != nullptr) Linear<T, Isa>::gradient(n2, nh * n2, n, g->B, all, in.g2, 1, n2, dV, all, pad<T>);
  if (g != nullptr && g->bias != nullptr && dz != nullptr) Linear<T, Isa>::bias_gradient(n2, n, g->bias, dz, n2);
  arena.release(mark);
}

DPA2_INSTANTIATE(PairAttention)
DPA2_INSTANTIATE_DUAL(PairAttention)

}  // namespace dpa2
