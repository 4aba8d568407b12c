#include "cpu/pair_attention.hpp"

#include <type_traits>

#include "cpu/simd.hpp"

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
  int r = 0;
  for (; r + width<T> <= rows; r += width<T>)
    for (int c = 0; c < columns; ++c) {
      Vec<T> v{};
#pragma GCC unroll 16
      for (int i = 0; i < width<T>; ++i) v[i] = x[(r + i) * ldx + c];
      store<T>(y + c * ldy + r, v);
    }
  for (int c = 0; c < columns; ++c)
    for (int i = r; i < m; ++i) y[c * ldy + i] = i < rows ? x[i * ldx + c] : T(0);
}

/// A product with packed weights.
template <class T, class Isa>
void dense(int n, T* y, const T* x, const Packed<T>& w, const T* bias, bool accumulate) {
  Linear<T, Isa>::run(n, w.n, w.k, y, w.n, x, w.k, 1, w.data, pad<T>, static_cast<long>(w.k) * pad<T>, bias, accumulate);
}

/// U (n, nh*n2) = g2 A and S (n*nh, ld) = U g2^T.
template <class T, class Isa>
void scores(const PairAttentionParams<T>& p, const PairAttentionInput<T>& in, const PairAttentionTape<T>& tape) {
  transpose(in.n, p.n2, in.m, tape.g2t, in.m, in.g2, p.n2);
  dense<T, Isa>(in.n, tape.U, in.g2, p.A, nullptr, false);
  Linear<T, Isa>::run(in.n * p.nh, lanes<T>(in.n), p.n2, tape.S, tape.ld, tape.U, p.n2, 1, tape.g2t, in.m, pad<T>, nullptr, false);
}

/// f(NV, j) for strips of lanes: two vectors at once, so that a line of the cache is used when it is there.
template <class T, class F>
DPA2_INLINE void strips(int n, F f) {
  int j = 0;
  for (; j + width<T> < n; j += 2 * width<T>) f(std::integral_constant<int, 2>(), j);
  if (j < n) f(std::integral_constant<int, 1>(), j);
}

/// P (n*nh, ld) = softmax over the keys, Rt = P c1; P may be Rt or S (then it is not kept).
template <class T, bool gate>
void softmax(const PairAttentionParams<T>& p, const PairAttentionInput<T>& in, const PairAttentionTape<T>& tape) {
  const long step = static_cast<long>(p.nh) * tape.ld;
  const T shift = p.shift;
  strips<T>(in.n, [&](auto vectors, int j) {
    constexpr int NV = vectors();
    for (int h = 0; h < p.nh; ++h) {
      const long base = static_cast<long>(h) * tape.ld + j;
      const T* S = tape.S + base;
      T *P = tape.P + base, *Rt = tape.Rt + base;
      const T *c1 = in.c1 + j, *c2 = in.c2 + j;
      Vec<T> top[NV], total[NV];
      // Logits are taken relative to the shift: c2 - 1 is exact near the centre, where a logit of about 20 would lose digits.
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) top[v] = splat<T>(in.npad > T(0) ? -shift : T(-1e30));
      for (int k = 0; k < in.n; ++k)
#pragma GCC unroll 2
        for (int v = 0; v < NV; ++v) {
          const long pair = static_cast<long>(k) * in.m + v * width<T>, at = k * step + v * width<T>;
          const Vec<T> switched = load<T>(c2 + pair);
          const Vec<T> factor = gate ? load<T>(c1 + pair) : switched;
          const Vec<T> b = load<T>(S + at) * factor + (switched - T(1)) * shift;
          store<T>(P + at, b);
          top[v] = simd::max<T>(top[v], b);
        }
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) total[v] = simd::exp_falling<T>(-shift - top[v]) * in.npad;
      for (int k = 0; k < in.n; ++k)
#pragma GCC unroll 2
        for (int v = 0; v < NV; ++v) {
          T* place = P + k * step + v * width<T>;
          const Vec<T> e = simd::exp_falling<T>(load<T>(place) - top[v]);
          store<T>(place, e);
          total[v] += e;
        }
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) total[v] = T(1) / total[v];
      for (int k = 0; k < in.n; ++k)
#pragma GCC unroll 2
        for (int v = 0; v < NV; ++v) {
          const long at = k * step + v * width<T>;
          const Vec<T> probability = load<T>(P + at) * total[v];
          store<T>(P + at, probability);
          store<T>(Rt + at, probability * load<T>(c1 + static_cast<long>(k) * in.m + v * width<T>));
        }
    }
  });
}

/// The backward of the softmax: dS (n*nh, ld) over dRt, dc1 and dc2 (n, m) = summed over the heads; inner: scratch (nh, 2 vectors).
template <class T, bool gate>
void softmax_backward(const PairAttentionParams<T>& p, const PairAttentionInput<T>& in, const PairAttentionTape<T>& tape, T* dS, T* dc1,
                      T* dc2, T* inner) {
  const long ld = tape.ld, step = p.nh * ld;
  const T shift = p.shift;
  strips<T>(in.n, [&](auto vectors, int j) {
    constexpr int NV = vectors();
    for (int h = 0; h < p.nh; ++h) {
      Vec<T> acc[NV] = {};
      for (int k = 0; k < in.n; ++k)
#pragma GCC unroll 2
        for (int v = 0; v < NV; ++v) {
          const long at = h * ld + k * step + j + v * width<T>;
          acc[v] += load<T>(tape.Rt + at) * load<T>(dS + at);
        }
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) store<T>(inner + (h * 2 + v) * width<T>, acc[v]);
    }
    for (int k = 0; k < in.n; ++k)
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) {
        const long pair = static_cast<long>(k) * in.m + j + v * width<T>;
        const Vec<T> c1 = load<T>(in.c1 + pair), c2 = gate ? c1 : load<T>(in.c2 + pair);
        Vec<T> g1{}, g2{};
        for (int h = 0; h < p.nh; ++h) {
          const long at = h * ld + k * step + j + v * width<T>;
          const Vec<T> s = load<T>(tape.S + at), probability = load<T>(tape.P + at), drt = load<T>(dS + at);
          const Vec<T> db = probability * (drt * c1 - load<T>(inner + (h * 2 + v) * width<T>));
          g1 += drt * probability;
          if constexpr (gate) {
            g1 += db * s;
            g2 += db;
          } else {
            g2 += db * (s + shift);
          }
          store<T>(dS + at, db * c2);
        }
        store<T>(dc1 + pair, g1);
        store<T>(dc2 + pair, gate ? g2 * shift : g2);
      }
  });
}

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
void PairAttention<T, Isa>::factors(int n, int m, bool smooth, T* c1, T* c2, const T* h2, const T* sw, Arena& arena) {
  const Arena::Mark mark = arena.mark();
  T* lane = arena.take<T>(4L * m);
  to_lanes(n, m, smooth, lane, h2, sw);
  for (int k = 0; k < n; ++k) {
    T* r1 = c1 + static_cast<long>(k) * m;
    T* r2 = c2 + static_cast<long>(k) * m;
    const T wk = smooth ? sw[k] : T(1);
    for (int j = 0; j < m; j += width<T>) {
      const Vec<T> ww = load<T>(lane + 3 * m + j) * wk;
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
void PairAttention<T, Isa>::layout(const PairAttentionParams<T>& p, int n, int m, bool keep, Arena& arena, PairAttentionTape<T>& tape) {
  const int used = lanes<T>(n);
  tape.ld = static_cast<long>(p.nh) * used / pad<T> % 16 == 0 ? used + width<T> : used;
  const long pairs = static_cast<long>(n) * p.nh * tape.ld, maps = static_cast<long>(n) * p.nh * p.n2;
  tape.g2t = arena.take<T>(static_cast<long>(p.n2) * m);
  tape.U = arena.take<T>(maps);
  tape.V = p.B.data != nullptr ? arena.take<T>(maps) : nullptr;
  tape.S = arena.take<T>(pairs);
  tape.P = keep ? arena.take<T>(pairs) : tape.S;
  tape.Rt = keep ? arena.take<T>(pairs) : tape.S;
}

template <class T, class Isa>
void PairAttention<T, Isa>::forward(const PairAttentionParams<T>& p, const PairAttentionInput<T>& in, const PairAttentionTape<T>& tape,
                                    T* z, T* dh) {
  const int n = in.n, nh = p.nh, n2 = p.n2, ld = tape.ld;
  if (n == 0) return;
  const T* Rt = tape.Rt;
  scores<T, Isa>(p, in, tape);
  if (p.gate)
    softmax<T, true>(p, in, tape);
  else
    softmax<T, false>(p, in, tape);
  if (z != nullptr) {
    // Keys and heads are one dimension of the sum: with the values mapped first, it is a single product.
    dense<T, Isa>(n, tape.V, in.g2, p.B, nullptr, false);
    Linear<T, Isa>::run(n, n2, n * nh, z, n2, Rt, 1, ld, tape.V, n2, pad<T>, p.bias, false);
  }
  if (dh != nullptr) {
    for (int j = 0; j < 3 * n; ++j) dh[j] = T(0);
    for (int k = 0; k < n; ++k)
      for (int h = 0; h < nh; ++h) {
        const T* row = Rt + (static_cast<long>(k) * nh + h) * ld;
        const T w = p.h2_weight[h];
        for (int j = 0; j < n; ++j)
          for (int x = 0; x < 3; ++x) dh[3 * j + x] += w * row[j] * in.h2[3 * k + x];
      }
  }
}

template <class T, class Isa>
void PairAttention<T, Isa>::backward(const PairAttentionParams<T>& p, const PairAttentionInput<T>& in, const PairAttentionTape<T>& tape,
                                     T* dg2, T* dh2, T* dc1, T* dc2, const T* dz, const T* ddh, Arena& arena) {
  const Arena::Mark mark = arena.mark();
  const int n = in.n, m = in.m, nh = p.nh, n2 = p.n2, keys = n * nh, ld = tape.ld, used = lanes<T>(n);
  T* dS = arena.take<T>(static_cast<long>(keys) * ld);
  T* maps = arena.take<T>(static_cast<long>(nh) * (ld > n ? ld : n) * n2);  // of dz, then the gradient of U
  T* dzt = arena.take<T>(static_cast<long>(n2) * m);
  T* mapped = arena.take<T>(static_cast<long>(nh) * n2 * m);
  T* inner = arena.take<T>(2L * nh * width<T>);
  if (n > 0) {
    if (dz != nullptr) {
      // dz is mapped back by every head, W_h = dz B_h^T, for the values' weights (dRt = g2 W^T) and for the values (Rt W).
      transpose(n, n2, m, dzt, m, dz, n2);
      Linear<T, Isa>::run(nh * n2, used, n2, mapped, m, p.Bt, n2, 1, dzt, m, pad<T>, nullptr, false);
      for (int h = 0; h < nh; ++h) {
        const T* head = mapped + static_cast<long>(h) * n2 * m;
        T* rows = maps + static_cast<long>(h) * ld * n2;
        Linear<T, Isa>::run(n, used, n2, dS + h * ld, static_cast<long>(nh) * ld, in.g2, n2, 1, head, m, pad<T>, nullptr, false);
        transpose(n2, n, n2, rows, n2, head, m);
        for (long i = static_cast<long>(n) * n2; i < static_cast<long>(ld) * n2; ++i) rows[i] = T(0);
      }
      // A row of Rt is one dimension of the sum, lanes without a query included: they must be numbers.
      for (int k = 0; k < keys && used < ld; ++k)
        for (int j = used; j < ld; ++j) tape.Rt[static_cast<long>(k) * ld + j] = T(0);
      Linear<T, Isa>::run(n, n2, nh * ld, dg2, n2, tape.Rt, static_cast<long>(nh) * ld, 1, maps, n2, pad<T>, nullptr, true);
    } else {
      for (long i = 0; i < static_cast<long>(keys) * ld; ++i) dS[i] = T(0);
    }
    if (ddh != nullptr) {
      for (int k = 0; k < n; ++k)
        for (int h = 0; h < nh; ++h) {
          const long at = (static_cast<long>(k) * nh + h) * ld;
          const T w = p.h2_weight[h];
          T own[3] = {0, 0, 0};
          for (int j = 0; j < n; ++j) {
            T dot = 0;
            for (int x = 0; x < 3; ++x) {
              dot += ddh[3 * j + x] * in.h2[3 * k + x];
              own[x] += tape.Rt[at + j] * ddh[3 * j + x];
            }
            dS[at + j] += w * dot;
          }
          for (int x = 0; x < 3; ++x) dh2[3 * k + x] += w * own[x];
        }
    }
    if (p.gate)
      softmax_backward<T, true>(p, in, tape, dS, dc1, dc2, inner);
    else
      softmax_backward<T, false>(p, in, tape, dS, dc1, dc2, inner);
    Linear<T, Isa>::run(n, n2, keys, dg2, n2, dS, 1, ld, tape.U, n2, pad<T>, nullptr, true);
    Linear<T, Isa>::run(keys, n2, n, maps, n2, dS, ld, 1, in.g2, n2, pad<T>, nullptr, false);
    dense<T, Isa>(n, dg2, maps, p.At, nullptr, true);
  }
  arena.release(mark);
}

DPA2_INSTANTIATE(PairAttention)

}  // namespace dpa2
