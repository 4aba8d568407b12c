#include "cpu/pair_attention.hpp"

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

/// y (nc, m) = x (n, nc)^T with zeros on the lanes n..m.
template <class T>
void transpose(int n, int m, int nc, T* y, const T* x) {
  for (int c = 0; c < nc; ++c) {
    T* row = y + static_cast<long>(c) * m;
    for (int e = 0; e < n; ++e) row[e] = x[static_cast<long>(e) * nc + c];
    for (int e = n; e < m; ++e) row[e] = T(0);
  }
}

/// A product with packed weights.
template <class T, class Isa>
void dense(int n, T* y, const T* x, const Packed<T>& w, const T* bias, bool accumulate) {
  Linear<T, Isa>::run(n, w.n, w.k, y, w.n, x, w.k, 1, w.data, pad<T>, static_cast<long>(w.k) * pad<T>, bias, accumulate);
}

/// Lanes that are computed: up to the end of the last vector in use.
template <class T>
int lanes(int n) {
  return (n + width<T> - 1) / width<T> * width<T>;
}

/// U (n, nh*n2) = g2 A and S (n*nh, ld) = U g2^T.
template <class T, class Isa>
void scores(const PairAttentionParams<T>& p, const PairAttentionInput<T>& in, const PairAttentionTape<T>& tape) {
  transpose(in.n, in.m, p.n2, tape.g2t, in.g2);
  dense<T, Isa>(in.n, tape.U, in.g2, p.A, nullptr, false);
  Linear<T, Isa>::run(in.n * p.nh, lanes<T>(in.n), p.n2, tape.S, tape.ld, tape.U, p.n2, 1, tape.g2t, in.m, pad<T>, nullptr, false);
}

/// P (n*nh, ld) = softmax over the keys, Rt = P c1; P may be Rt or S (then it is not kept).
template <class T, bool gate>
void softmax(const PairAttentionParams<T>& p, const PairAttentionInput<T>& in, const PairAttentionTape<T>& tape) {
  const long step = static_cast<long>(p.nh) * tape.ld;
  const T shift = p.shift;
  for (int j = 0; j < in.n; j += width<T>)
    for (int h = 0; h < p.nh; ++h) {
      const long base = static_cast<long>(h) * tape.ld + j;
      const T* S = tape.S + base;
      T *P = tape.P + base, *Rt = tape.Rt + base;
      const T *c1 = in.c1 + j, *c2 = in.c2 + j;
      // Logits are taken relative to the shift: c2 - 1 is exact near the centre, where a logit of about 20 would lose digits.
      Vec<T> top = splat<T>(in.npad > T(0) ? -shift : T(-1e30));
      for (int k = 0; k < in.n; ++k) {
        const Vec<T> switched = load<T>(c2 + static_cast<long>(k) * in.m);
        const Vec<T> factor = gate ? load<T>(c1 + static_cast<long>(k) * in.m) : switched;
        const Vec<T> b = load<T>(S + k * step) * factor + (switched - T(1)) * shift;
        store<T>(P + k * step, b);
        top = simd::max<T>(top, b);
      }
      Vec<T> total = simd::exp_falling<T>(-shift - top) * in.npad;
      for (int k = 0; k < in.n; ++k) {
        const Vec<T> e = simd::exp_falling<T>(load<T>(P + k * step) - top);
        store<T>(P + k * step, e);
        total += e;
      }
      const Vec<T> inv = T(1) / total;
      for (int k = 0; k < in.n; ++k) {
        const Vec<T> v = load<T>(P + k * step) * inv;
        store<T>(P + k * step, v);
        store<T>(Rt + k * step, v * load<T>(c1 + static_cast<long>(k) * in.m));
      }
    }
}

/// The backward of the softmax: dS (n*nh, ld) over dRt, dc1 and dc2 (n, m) = summed over the heads.
template <class T, bool gate>
void softmax_backward(const PairAttentionParams<T>& p, const PairAttentionInput<T>& in, const PairAttentionTape<T>& tape, T* dS, T* dc1,
                      T* dc2) {
  const long step = static_cast<long>(p.nh) * tape.ld;
  const T shift = p.shift;
  for (int j = 0; j < in.n; j += width<T>)
    for (int h = 0; h < p.nh; ++h) {
      const long base = static_cast<long>(h) * tape.ld + j;
      Vec<T> inner{};
      for (int k = 0; k < in.n; ++k) inner += load<T>(tape.Rt + base + k * step) * load<T>(dS + base + k * step);
      for (int k = 0; k < in.n; ++k) {
        const long pair = static_cast<long>(k) * in.m + j, at = base + k * step;
        const Vec<T> c1 = load<T>(in.c1 + pair), s = load<T>(tape.S + at), prob = load<T>(tape.P + at), drt = load<T>(dS + at);
        const Vec<T> db = prob * (drt * c1 - inner);
        Vec<T> g1 = drt * prob, g2;
        if constexpr (gate) {
          g1 += db * s;
          g2 = db * shift;
          store<T>(dS + at, db * c1);
        } else {
          g2 = db * (s + shift);
          store<T>(dS + at, db * load<T>(in.c2 + pair));
        }
        store<T>(dc1 + pair, h == 0 ? g1 : load<T>(dc1 + pair) + g1);
        store<T>(dc2 + pair, h == 0 ? g2 : load<T>(dc2 + pair) + g2);
      }
    }
}

/// lane (4, m) = the columns of h2, and sw or 1; zero on the lanes n..m.
template <class T>
void to_lanes(int n, int m, bool smooth, T* lane, const T* h2, const T* sw) {
  transpose(n, m, 3, lane, h2);
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
  tape.ld = static_cast<long>(p.nh) * m / pad<T> % 16 == 0 ? m + pad<T> : m;
  const long pairs = static_cast<long>(n) * p.nh * tape.ld;
  tape.g2t = arena.take<T>(static_cast<long>(p.n2) * m);
  tape.U = arena.take<T>(static_cast<long>(n) * p.nh * p.n2);
  tape.V = p.B.data != nullptr ? arena.take<T>(static_cast<long>(n) * p.nh * p.n2) : nullptr;
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
  if (p.B.data != nullptr) {
    // Keys and heads are one dimension of the sum: with the values mapped first, it is a single product.
    dense<T, Isa>(n, tape.V, in.g2, p.B, nullptr, false);
    Linear<T, Isa>::run(n, n2, n * nh, z, n2, Rt, 1, ld, tape.V, n2, pad<T>, p.bias, false);
  }
  if (p.h2_weight != nullptr) {
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
  const int n = in.n, m = in.m, nh = p.nh, n2 = p.n2, keys = n * nh, ld = tape.ld;
  const T* Rt = tape.Rt;
  T* dS = arena.take<T>(static_cast<long>(keys) * ld);
  T* dzt = arena.take<T>(static_cast<long>(n2) * m);
  T* dmap = arena.take<T>(static_cast<long>(keys) * n2);  // of V, then of U
  if (n > 0) {
    if (p.B.data != nullptr) {
      transpose(n, m, n2, dzt, dz);
      Linear<T, Isa>::run(keys, lanes<T>(n), n2, dS, ld, tape.V, n2, 1, dzt, m, pad<T>, nullptr, false);
      Linear<T, Isa>::run(keys, n2, n, dmap, n2, Rt, ld, 1, dz, n2, pad<T>, nullptr, false);
      dense<T, Isa>(n, dg2, dmap, p.Bt, nullptr, true);
    } else {
      for (long i = 0; i < static_cast<long>(keys) * ld; ++i) dS[i] = T(0);
    }
    if (p.h2_weight != nullptr) {
      for (int k = 0; k < n; ++k)
        for (int h = 0; h < nh; ++h) {
          const long at = (static_cast<long>(k) * nh + h) * ld;
          const T w = p.h2_weight[h];
          T own[3] = {0, 0, 0};
          for (int j = 0; j < n; ++j) {
            T dot = 0;
            for (int x = 0; x < 3; ++x) {
              dot += ddh[3 * j + x] * in.h2[3 * k + x];
              own[x] += Rt[at + j] * ddh[3 * j + x];
            }
            dS[at + j] += w * dot;
          }
          for (int x = 0; x < 3; ++x) dh2[3 * k + x] += w * own[x];
        }
    }
    if (p.gate)
      softmax_backward<T, true>(p, in, tape, dS, dc1, dc2);
    else
      softmax_backward<T, false>(p, in, tape, dS, dc1, dc2);
    Linear<T, Isa>::run(n, n2, keys, dg2, n2, dS, 1, ld, tape.U, n2, pad<T>, nullptr, true);
    Linear<T, Isa>::run(keys, n2, n, dmap, n2, dS, ld, 1, in.g2, n2, pad<T>, nullptr, false);
    dense<T, Isa>(n, dg2, dmap, p.At, nullptr, true);
  }
  arena.release(mark);
}

DPA2_INSTANTIATE(PairAttention)

}  // namespace dpa2
