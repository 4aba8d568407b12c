// Attention among the pairs of a centre and attention to its neighbours, as the tests call them: the formulas are not folded.
#pragma once

#include "math/attention.hpp"
#include "operation.hpp"

namespace operation {

using dpa2::Kernels;

/// 1 - sw, which kernels in float32 take beside the switch.
template <class T>
std::vector<Wide<T>> fall_of(const std::vector<Wide<T>>& sw) {
  std::vector<Wide<T>> fall;
  for (const Wide<T>& w : sw) fall.push_back(1.0 - w);
  return fall;
}
/// p (n) = softmax of b over the keys with `pads` more logits of zero; b is relative to no shift.
template <class S>
std::vector<S> softmax(const std::vector<S>& b, double pads) {
  double top = pads > 0 ? 0.0 : -1e300;
  for (const S& v : b) top = std::max(top, real(v));
  S total = pads * exp(-top);
  std::vector<S> p;
  for (const S& v : b) {
    p.push_back(exp(v - top));
    total += p.back();
  }
  for (S& v : p) v /= total;
  return p;
}

/// c1, and what c2 lacks to 1: float32 kernels have it as such, and with its digits where it is small.
struct Factors {
  int n;
  bool smooth;
  Vector h2, sw;

  Blocks inputs() const { return smooth ? Blocks{h2, sw} : Blocks{h2}; }
  template <class S>
  Values<S> reference(const Values<S>& x) const {
    Values<S> y(2);
    for (int k = 0; k < n; ++k)
      for (int j = 0; j < n; ++j) {
        S hh = 0;
        for (int c = 0; c < 3; ++c) hh += x[0][at(3L * j + c)] * x[0][at(3L * k + c)];
        const S ss = smooth ? x[1][at(j)] * x[1][at(k)] : S(1);
        y[0].push_back(hh * ss);
        y[1].push_back(1.0 - ss);
      }
    return y;
  }
  template <class T>
  BlocksOf<T> forward(const Kernels<T>& k, const BlocksOf<T>& x) const {
    const int m = padded<T>(n);
    Guarded<T> h(x[0], 1), w(smooth ? x[1] : std::vector<Wide<T>>(at(n), filler<Wide<T>>(NAN)), 1);
    Guarded<T> c1(static_cast<long>(n) * m), c2(static_cast<long>(n) * m);
    Guarded<T> fall(fall_of<T>(w.values()), 1);
    const T nothing(dpa2::by_fall<T> ? 1 : 0);  // of a switch that is zero
    dpa2::Arena arena;
    k.attention_factors(n, m, smooth, c1, c2, h, w, fall, arena);
    for (int e = 0; e < n; ++e)
      for (int j = n; j < m; ++j) CHECK(c1(static_cast<long>(e) * m + j) == T(0) && c2(static_cast<long>(e) * m + j) == nothing);
    std::vector<Wide<T>> rest = c2.rows(n, n, m);
    if (!dpa2::by_fall<T>)
      for (int e = 0; e < n; ++e)
        for (int j = 0; j < n; ++j) {
          Wide<T>& c = rest[at(static_cast<long>(e) * n + j)];
          const Wide<T> ss = smooth ? number<Wide<T>>(w(j)) * number<Wide<T>>(w(e)) : Wide<T>(1);
          CHECK_NEAR(c, ss, (sizeof(Real<T>) == 4 ? 2e-7 : 4e-16) * std::abs(static_cast<double>(ss)));
          c = 1.0 - c;
        }
    return {c1.rows(n, n, m), rest};
  }
  template <class T>
  BlocksOf<T> backward(const Kernels<T>& k, const BlocksOf<T>& x, const BlocksOf<T>& dy) const {
    const int m = padded<T>(n);
    Guarded<T> h(x[0], 1), w(smooth ? x[1] : std::vector<Wide<T>>(at(n), filler<Wide<T>>(NAN)), 1);
    std::vector<Wide<T>> dss = dy[1];  // the kernels take the gradient of c2 itself
    for (Wide<T>& g : dss) g = -g;
    Rows<T> dc1(dy[0], n, n, m), dc2(dss, n, n, m);
    Guarded<T> dh2(3L * n, T(start_value), 1), dsw(n, T(start_value), 1);
    dpa2::Arena arena;
    k.attention_factors_backward(n, m, smooth, dh2, dsw, dc1, dc2, h, w, arena);
    if (smooth) return {dh2.values(-1, start_value), dsw.values(-1, start_value)};
    for (int e = 0; e < n; ++e) CHECK(dsw(e) == T(start_value));
    return {dh2.values(-1, start_value)};
  }
};

/// The pair attention (theory 8.5-8.7) with the projections as they stand in the files; z without its mean, as LayerNorm wants it.
struct PairAttention {
  int n, n2, nh, nd;
  bool gate, smooth, has_g2, has_h2;
  double pads;
  Vector g2, h2, sw;
  Vector Wqk, Wv, Wo, bo, wev;

  PairAttention(Random& random, int edges, int channels, int heads, int hidden, bool gated, bool smooth_, bool g2_update, bool h2_update,
                double padded_slots)
      : n(edges),
        n2(channels),
        nh(heads),
        nd(hidden),
        gate(gated),
        smooth(smooth_),
        has_g2(g2_update),
        has_h2(h2_update),
        pads(padded_slots),
        g2(random.vector(static_cast<long>(n) * n2)),
        h2(random.vector(3L * n)),
        sw(random.vector(n, 0.0, 1.0)),
        Wqk(random.vector(2L * n2 * nd * nh)),
        Wv(random.vector(static_cast<long>(n2) * n2 * nh)),
        Wo(random.vector(static_cast<long>(n2) * n2 * nh)),
        bo(random.vector(n2)),
        wev(random.vector(nh)) {}

  Blocks inputs() const { return smooth ? Blocks{g2, h2, sw} : Blocks{g2, h2}; }
  Blocks weights() const { return {Wqk, Wv, Wo, bo, wev}; }

  template <class S>
  Values<S> reference(const Values<S>& x, const Values<S>& weight) const {
    const long hc = static_cast<long>(n2) * nh, width = 2L * nd * nh;
    const std::vector<S> y = product(x[0], weight[0], n, n2, width), v = product(x[0], weight[1], n, n2, hc);
    const auto w = [&](int e) { return smooth ? x[2][at(e)] : S(1); };
    std::vector<S> o(at(n * hc)), dh(at(3L * n));
    for (int h = 0; h < nh; ++h)
      for (int j = 0; j < n; ++j) {
        std::vector<S> logit, hh(at(n));
        for (int k = 0; k < n; ++k) {
          S s = 0;
          for (int d = 0; d < nd; ++d) s += y[at(j * width + d * 2 * nh + h)] * y[at(k * width + d * 2 * nh + nh + h)];
          s /= std::sqrt(static_cast<double>(nd));
          for (int c = 0; c < 3; ++c) hh[at(k)] += x[1][at(3L * j + c)] * x[1][at(3L * k + c)];
          const S u = gate ? s * hh[at(k)] : s;
          logit.push_back(smooth ? (u + 20.0) * w(j) * w(k) : u);
        }
        const std::vector<S> P = softmax(logit, smooth ? pads : 0.0);
        for (int k = 0; k < n; ++k) {
          const S Rt = P[at(k)] * w(j) * w(k) * hh[at(k)] / std::sqrt(3.0);
          for (int c = 0; c < n2; ++c) o[at(j * hc + static_cast<long>(c) * nh + h)] += Rt * v[at(k * hc + static_cast<long>(c) * nh + h)];
          for (int c = 0; c < 3; ++c) dh[at(3L * j + c)] += weight[4][at(h)] * Rt * x[1][at(3L * k + c)];
        }
      }
    Values<S> out;
    if (has_g2) {
      std::vector<S> z = product(o, weight[2], n, hc, n2);
      for (int j = 0; j < n; ++j) {
        S mean = 0;
        for (int c = 0; c < n2; ++c) mean += (z[at(static_cast<long>(j) * n2 + c)] += weight[3][at(c)]) / static_cast<double>(n2);
        for (int c = 0; c < n2; ++c) z[at(static_cast<long>(j) * n2 + c)] -= mean;
      }
      out.push_back(z);
    }
    if (has_h2) out.push_back(dh);
    return out;
  }

  template <class T>
  struct Arrays {
    using R = Real<T>;
    /// The folded matrices: head h of A is Wk_h Wq_h^T / sqrt(nd), of B it is Wv_h Wo_h without the mean of its rows / sqrt(3).
    static Vector fold(const PairAttention& op, bool values) {
      const int n2 = op.n2, nh = op.nh, nd = op.nd;
      Vector m(at(static_cast<long>(n2) * n2 * nh));
      for (int h = 0; h < nh; ++h)
        for (int a = 0; a < n2; ++a)
          for (int b = 0; b < n2; ++b) {
            double sum = 0;
            if (values) {
              for (int c = 0; c < n2; ++c) {
                const double* wo = op.Wo.data() + (static_cast<std::ptrdiff_t>(c) * nh + h) * n2;
                double mean = 0;
                for (int i = 0; i < n2; ++i) mean += wo[i] / n2;
                sum += op.Wv[at(static_cast<long>(a) * n2 * nh + static_cast<long>(c) * nh + h)] * (wo[b] - mean);
              }
              m[at((static_cast<long>(h) * n2 + a) * n2 + b)] = sum / std::sqrt(3.0);
            } else {
              for (int d = 0; d < nd; ++d)
                sum += op.Wqk[at(2L * a * nd * nh + d * 2L * nh + nh + h)] * op.Wqk[at(2L * b * nd * nh + d * 2L * nh + h)];
              m[at((static_cast<long>(h) * n2 + a) * n2 + b)] = sum / std::sqrt(static_cast<double>(nd));
            }
          }
      return m;  // (nh, n2, n2)
    }
    /// (nh, n2, n2) in one matrix, the heads next to each other or below each other, each padded to np.
    static Vector arrange(const Vector& heads, int nh, int n2, int np, bool beside, bool transposed) {
      Vector m(at(static_cast<long>(nh) * np * np), 0.0);
      for (int h = 0; h < nh; ++h)
        for (int a = 0; a < n2; ++a)
          for (int b = 0; b < n2; ++b) {
            const double v = heads[at((static_cast<long>(h) * n2 + (transposed ? b : a)) * n2 + (transposed ? a : b))];
            m[at(beside ? static_cast<long>(a) * nh * np + static_cast<long>(h) * np + b : (static_cast<long>(h) * np + a) * np + b)] = v;
          }
      return m;
    }
    Arrays(const PairAttention& op, const BlocksOf<T>& x)
        : m(padded<T>(op.n)),
          np(padded<T>(op.n2)),
          hc(op.nh * np),
          A(arrange(fold(op, false), op.nh, op.n2, np, true, false), np, hc, np, hc),
          At(arrange(fold(op, false), op.nh, op.n2, np, false, true), hc, np, hc, np),
          B(arrange(fold(op, true), op.nh, op.n2, np, true, false), np, hc, np, hc),
          Bt(arrange(fold(op, true), op.nh, op.n2, np, false, true), hc, np, hc, np),
          B_stack(arrange(fold(op, true), op.nh, op.n2, np, false, false)),
          bias(np, R(0)),
          weight(op.nh),
          g2(x[0], op.n, op.n2, np),
          h2(x[1], 1),
          sw(op.smooth ? x[2] : std::vector<Wide<T>>(at(op.n), filler<Wide<T>>(NAN)), 1),
          fall(fall_of<T>(sw.values()), 1),
          c1(static_cast<long>(op.n) * m),
          c2(static_cast<long>(op.n) * m) {
      double mean = 0;
      for (int c = 0; c < op.n2; ++c) mean += op.bo[at(c)] / op.n2;
      for (int c = 0; c < op.n2; ++c) bias(c) = static_cast<R>(op.bo[at(c)] - mean);
      for (int h = 0; h < op.nh; ++h) weight(h) = static_cast<R>(op.wev[at(h)] / std::sqrt(3.0));
      p.nh = op.nh;
      p.n2 = np;
      p.gate = op.gate;
      p.smooth = op.smooth;
      p.shift = op.smooth ? R(20) : R(0);
      p.A = A.packed;
      p.At = At.packed;
      if (op.has_g2) {
        p.B = B.packed;
        p.Bt = Bt.packed;
        p.B_stack = B_stack;
        p.bias = bias;
      }
      if (op.has_h2) p.h2_weight = weight;
      in = {op.n, m, g2, h2, c1, c2, op.smooth ? static_cast<R>(op.pads) : R(0)};
    }
    int m, np, hc;
    Panels<R> A, At, B, Bt;
    Guarded<R> B_stack, bias, weight;
    Rows<T> g2;
    Guarded<T> h2, sw, fall, c1, c2;
    dpa2::PairAttentionParams<R> p;
    dpa2::PairAttentionInput<T> in;
  };

  template <class T>
  BlocksOf<T> forward(const Kernels<T>& k, const BlocksOf<T>& x) const {
    Arrays<T> a(*this, x);
    dpa2::Arena arena;
    Guarded<T> z(has_g2 ? static_cast<long>(n) * a.np : 0), dh(has_h2 ? 3L * n : 0, filler<T>(NAN), 1);
    k.attention_factors(n, a.m, smooth, a.c1, a.c2, a.h2, a.sw, a.fall, arena);
    k.pair_attention(a.p, a.in, has_g2 ? z.data() : nullptr, has_h2 ? dh.data() : nullptr, arena);
    BlocksOf<T> y;
    if (has_g2) y.push_back(z.rows(n, n2, a.np));
    if (has_h2) y.push_back(dh.values());
    return y;
  }
  template <class T>
  BlocksOf<T> backward(const Kernels<T>& k, const BlocksOf<T>& x, const BlocksOf<T>& dy, Blocks* dw = nullptr) const {
    using R = Real<T>;
    Arrays<T> a(*this, x);
    dpa2::Arena arena;
    const long pairs = static_cast<long>(n) * a.m, size = static_cast<long>(n) * a.np;
    Guarded<T> dg2(size, T(start_value)), dh2(3L * n, T(start_value), 1);
    Guarded<T> dsw(n, T(start_value), 1), dc1(pairs), dc2(pairs);
    const auto nothing = [](long count) { return std::vector<Wide<T>>(at(count), filler<Wide<T>>(NAN)); };
    Rows<T> dz(has_g2 ? dy[0] : nothing(static_cast<long>(n) * n2), n, n2, a.np);
    Guarded<T> ddh(has_h2 ? dy.back() : nothing(3L * n), 1);
    const long matrix = static_cast<long>(a.np) * a.hc;
    const R start = static_cast<R>(start_value);
    Guarded<R> dA(matrix, start), dB(matrix, start), dbias(a.np, start), dweight(nh, start);
    dpa2::PairAttentionGradient<R> g;
    g.A = dA;
    if (has_g2) {
      g.B = dB;
      g.bias = dbias;
    }
    if (has_h2) g.h2 = dweight;
    k.attention_factors(n, a.m, smooth, a.c1, a.c2, a.h2, a.sw, a.fall, arena);
    k.pair_attention_backward(a.p, a.in, dg2, dh2, dc1, dc2, dw != nullptr ? &g : nullptr, has_g2 ? dz.data() : nullptr,
                              has_h2 ? ddh.data() : nullptr, arena);
    k.attention_factors_backward(n, a.m, smooth, dh2, dsw, dc1, dc2, a.h2, a.sw, arena);
    if (dw != nullptr)
      *dw = unfolded(dA.rows(n2, a.hc, a.hc, start_value), dB.rows(n2, a.hc, a.hc, start_value), dbias.values(n2, start_value),
                     dweight.values(-1, start_value), a.np);
    BlocksOf<T> dx{dg2.rows(n, n2, a.np, start_value), dh2.values(-1, start_value)};
    if (smooth) dx.push_back(dsw.values(-1, start_value));
    return dx;
  }

  /// The gradients of the weights as they stand in the files, given those of the folded ones: matrices (n2, nh*np), head beside head.
  Blocks unfolded(const Vector& dA, const Vector& dB, const Vector& dbias, const Vector& dweight, int np) const {
    Blocks d;
    for (const Vector& block : weights()) d.emplace_back(block.size(), 0.0);
    const double root = std::sqrt(static_cast<double>(nd)), third = std::sqrt(3.0);
    for (int h = 0; h < nh; ++h)
      for (int a = 0; a < n2; ++a) {
        const auto row = [&](const Vector& m, int b) { return m[at((static_cast<long>(a) * nh + h) * np + b)]; };
        double mean = 0;
        for (int b = 0; b < n2; ++b) mean += row(dB, b) / n2;
        for (int b = 0; b < n2; ++b) {
          for (int i = 0; i < nd; ++i) {
            const std::size_t key = at(2L * a * nd * nh + i * 2L * nh + nh + h), query = at(2L * b * nd * nh + i * 2L * nh + h);
            d[0][key] += row(dA, b) * Wqk[query] / root;
            d[0][query] += row(dA, b) * Wqk[key] / root;
          }
          for (int c = 0; c < n2; ++c) {
            const std::size_t value = at(static_cast<long>(a) * n2 * nh + static_cast<long>(c) * nh + h);
            const std::size_t head = at((static_cast<long>(c) * nh + h) * n2 + b);
            d[1][value] += (row(dB, b) - mean) * Wo[head] / third;
            d[2][head] += (row(dB, b) - mean) * Wv[value] / third;
          }
        }
      }
    double mean = 0;
    for (const double b : dbias) mean += b / n2;
    for (int c = 0; c < n2; ++c) d[3][at(c)] = dbias[at(c)] - mean;
    for (int h = 0; h < nh; ++h) d[4][at(h)] = dweight[at(h)] / third;
    return d;
  }
};

/// The local attention from the folded query on (theory 8.10, S7): scores, probabilities, weighted sum of the neighbours' g1.
struct LocalAttention {
  int n, n1, nh, nall;
  bool smooth;
  double pads;
  std::vector<int> j, place;  // rows of the neighbours; where the gradient of a row goes
  Vector tq, g1, w;

  LocalAttention(Random& random, int edges, int channels, int heads, bool smooth_, double padded_slots)
      : n(edges),
        n1(channels),
        nh(heads),
        nall(7),
        smooth(smooth_),
        pads(padded_slots),
        j(random.integers(n, nall)),
        place(random.permutation(nall)),
        tq(random.vector(static_cast<long>(nh) * n1)),
        g1(random.vector(static_cast<long>(nall) * n1)),
        w(random.vector(n, 0.75, 1.0)) {}  // logits about 5 apart: with one key alone the gradient of its score cancels to nothing

  Blocks inputs() const { return smooth ? Blocks{tq, g1, w} : Blocks{tq, g1}; }
  template <class S>
  Values<S> reference(const Values<S>& x) const {
    Values<S> o{std::vector<S>(at(static_cast<long>(nh) * n1))};
    for (int h = 0; h < nh; ++h) {
      std::vector<S> logit;
      for (int e = 0; e < n; ++e) {
        S s = 0;
        for (int c = 0; c < n1; ++c) s += x[0][at(static_cast<long>(h) * n1 + c)] * x[1][at(static_cast<long>(j[at(e)]) * n1 + c)];
        logit.push_back(smooth ? (s + 20.0) * x[2][at(e)] : s);
      }
      const std::vector<S> P = softmax(logit, smooth ? pads : 0.0);
      for (int e = 0; e < n; ++e)
        for (int c = 0; c < n1; ++c)
          o[0][at(static_cast<long>(h) * n1 + c)] +=
              P[at(e)] * (smooth ? x[2][at(e)] : S(1)) * x[1][at(static_cast<long>(j[at(e)]) * n1 + c)];
    }
    return o;
  }
  template <class T>
  BlocksOf<T> forward(const Kernels<T>& k, const BlocksOf<T>& x) const {
    const int np = padded<T>(n1);
    dpa2::Arena arena;
    Rows<T> q(x[0], nh, n1, np, 0), g(x[1], nall, n1, np);
    Guarded<T> o(static_cast<long>(nh) * np), sw(smooth ? x[2] : std::vector<Wide<T>>(), 1), fall(fall_of<T>(sw.values()), 1);
    Guarded<int> index(j);
    k.local_attention(n, np, nh, o, q, g, index, smooth ? static_cast<T*>(sw) : nullptr, smooth ? static_cast<T*>(fall) : nullptr,
                      shift<T>(), pad_slots<T>(), arena);
    return {o.rows(nh, n1, np)};
  }
  template <class T>
  BlocksOf<T> backward(const Kernels<T>& k, const BlocksOf<T>& x, const BlocksOf<T>& dy) const {
    const int np = padded<T>(n1);
    dpa2::Arena arena;
    Rows<T> q(x[0], nh, n1, np, 0), g(x[1], nall, n1, np), dout(dy[0], nh, n1, np, 0);
    Guarded<T> dq(static_cast<long>(nh) * np), dg(static_cast<long>(nall) * np, T(start_value));
    Guarded<T> sw(smooth ? x[2] : std::vector<Wide<T>>(), 1), fall(fall_of<T>(sw.values()), 1), dw(smooth ? n : 0, T(start_value), 1);
    std::vector<int> scatter;
    for (const int row : j) scatter.push_back(place[at(row)]);
    Guarded<int> index(j), target(scatter);
    k.local_attention_backward(n, np, nh, dq, dg, target, dw, dout, q, g, index, smooth ? static_cast<T*>(sw) : nullptr,
                               smooth ? static_cast<T*>(fall) : nullptr, shift<T>(), pad_slots<T>(), arena);
    const std::vector<Wide<T>> placed = dg.rows(nall, n1, np, start_value);
    std::vector<Wide<T>> dg1;
    for (const std::ptrdiff_t p : place) dg1.insert(dg1.end(), placed.begin() + p * n1, placed.begin() + (p + 1) * n1);
    BlocksOf<T> dx{dq.rows(nh, n1, np), dg1};
    if (smooth) dx.push_back(dw.values(-1, start_value));
    return dx;
  }

 private:
  template <class T>
  Real<T> shift() const {
    return smooth ? Real<T>(20) : Real<T>(0);
  }
  template <class T>
  Real<T> pad_slots() const {
    return smooth ? static_cast<Real<T>>(pads) : Real<T>(0);
  }
};

}  // namespace operation
