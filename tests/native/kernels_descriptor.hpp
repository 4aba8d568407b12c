// The first descriptor as the tests call it: repinit and the three-body sum, and what stands in for their networks.
#pragma once

#include "graph/table.hpp"
#include "graph/trained_series.hpp"
#include "network.hpp"

namespace operation {

using dpa2::Kernels;

/// A network as local series on [lo, hi), in both precisions, as training makes them: they know the way back to its weights.
struct Series {
  Series(const Net& of, int ncurves, double lo, double hi, int pair_types = 0) : net(of), source(net) {
    trained64 = dpa2::TrainedSeries::build(storage, f64, source.net, ncurves, lo, hi, pair_types, 1);
    trained32 = dpa2::TrainedSeries::build(storage, f32, source.net, ncurves, lo, hi, pair_types, 1);
    CHECK(trained64 && trained32);
  }
  template <class T>
  const dpa2::SeriesTable<T>* table() const {
    if constexpr (sizeof(T) == 8)
      return &f64;
    else
      return &f32;
  }
  /// w, blocks as of Net::folded, += what the weights get of da, the gradient of the coefficients.
  template <class T>
  void add_gradient(Blocks& w, const Guarded<T>& da) const {
    Guarded<T> plain(da.values(-1, start_value));
    const NetGradient<double> g(net);
    if constexpr (sizeof(T) == 8)
      trained64->gradient<double>(plain, {g.g});
    else
      trained32->gradient<float>(plain, {g.g});
    const Blocks more = g.blocks();
    for (std::size_t b = 0; b < more.size(); ++b)
      for (std::size_t i = 0; i < more[b].size(); ++i) w[b][i] += more[b][i];
  }
  Net net;
  PreparedNet<double> source;
  dpa2::Storage storage;
  dpa2::SeriesTable<double> f64;
  dpa2::SeriesTable<float> f32;
  std::unique_ptr<const dpa2::TrainedSeries> trained64, trained32;
};

/// Room for the gradient of the coefficients of a table; none without one.
template <class T>
struct CoefficientGradient : Guarded<T> {
  explicit CoefficientGradient(const dpa2::SeriesTable<T>* table)
      : Guarded<T>(table != nullptr ? static_cast<long>(table->nintervals) * dpa2::series_terms<T> * table->nc : 0,
                   static_cast<T>(start_value)) {}
};

/// The table of a compressed model: random values, slopes and second derivatives at the nodes of a grid of two steps.
struct Table {
  Table(Random& random, int curves, int channels, double lower, double step) : ncurves(curves), ng(channels) {
    config.lower = lower;
    config.step = step;
    config.segments = {{3, 1}, {2, 2}, {1, 1}};
    for (const double width : {1.0, 1.0, 1.0, 2.0, 2.0, 1.0}) {
      begin.push_back(begin.empty() ? lower : begin.back() + length.back());
      length.push_back(step * width);
    }
    const std::size_t n = begin.size();
    weight.shape = {curves, static_cast<std::int64_t>(n), 6, channels};
    weight.data.resize(static_cast<std::size_t>(curves) * n * 6 * at(channels));
    for (int curve = 0; curve < curves; ++curve)
      for (int c = 0; c < channels; ++c) {
        const Vector jets = random.vector(3 * static_cast<long>(n + 1));
        for (std::size_t k = 0; k < n; ++k) {
          const double h = length[k], *p = &jets[3 * k], *q = &jets[3 * (k + 1)];
          const double v = p[0], d = p[1] * h, b = 0.5 * p[2] * h * h, V = q[0] - v - d - b, D = q[1] * h - d - 2 * b,
                       B = q[2] * h * h - 2 * b;
          const double a[6] = {v, d, b, 10 * V - 4 * D + 0.5 * B, -15 * V + 7 * D - B, 6 * V - 3 * D + 0.5 * B};
          for (int t = 0; t < 6; ++t) weight.data[((at(curve) * n + k) * 6 + at(t)) * at(channels) + at(c)] = a[t];
        }
      }
    dpa2::build_quintic(storage, f64, config, weight);
    dpa2::build_quintic(storage, f32, config, weight);
  }
  /// Outside of the grid a curve goes on as a straight line.
  template <class S>
  std::vector<S> operator()(S s, int curve) const {
    const double first = begin.front(), last = begin.back() + length.back(), inside = std::min(std::max(real(s), first), last);
    std::size_t k = 0;
    while (k + 1 < begin.size() && inside >= begin[k + 1]) ++k;
    std::vector<S> out(at(ng));
    const S t = (real(s) == inside ? s - begin[k] : S(inside - begin[k])) / length[k];
    for (int c = 0; c < ng; ++c) {
      S value = 0, slope = 0;
      for (int p = 5; p >= 0; --p) {
        slope = slope * t + value;
        value = value * t + weight.data[((at(curve) * begin.size() + k) * 6 + at(p)) * at(ng) + at(c)];
      }
      out[at(c)] = real(s) == inside ? value : value + slope * (s - inside) / length[k];
    }
    return out;
  }
  template <class T>
  const dpa2::QuinticTable<T>* table() const {
    if constexpr (sizeof(T) == 8)
      return &f64;
    else
      return &f32;
  }
  int ncurves, ng;
  dpa2::TableConfig config;
  Vector begin, length;
  dpa2::Tensor weight;
  dpa2::Storage storage;
  dpa2::QuinticTable<double> f64;
  dpa2::QuinticTable<float> f32;
};

/// A gate with rows padded as the kernels of a table want them.
template <class T>
struct GateRows : Guarded<T> {
  GateRows(const Vector& gate, int rows, int width) : Guarded<T>(static_cast<long>(rows) * padded<T>(width), T(0)) {
    this->set_rows(gate, gate.empty() ? 0 : rows, width, padded<T>(width), 0);
  }
};

struct Repinit {
  Net net;
  int n, axis, nsel;
  std::vector<int> combination;
  Vector R, sw;  // (4, n), (n)
  Vector gate;   // (ncomb_gate, ng) or empty
  bool gate_switch;
  double p1 = 0;        // padded slots
  Vector pad_R, pad_G;  // or empty
  std::shared_ptr<const Series> series = nullptr;
  std::shared_ptr<const Table> quintic = nullptr;

  Blocks inputs() const { return {R, sw}; }
  /// Those of the network, the gate, and the embedding of the padded slots.
  Blocks weights() const {
    Blocks w = net.folded();
    w.push_back(gate);
    w.push_back(pad_G);
    return w;
  }
  template <class S>
  std::vector<S> embed(S s, S switched, int c, const Values<S>& w) const {
    std::vector<S> g = quintic ? (*quintic)(s, gate.empty() ? c : 0) : net(s, c, w, 0);
    if (!gate.empty())
      for (std::size_t i = 0; i < g.size(); ++i) g[i] *= 1.0 + w[net.nfolded()][at(c) * g.size() + i] * (gate_switch ? switched : S(1));
    return g;
  }
  template <class S>
  Values<S> reference(const Values<S>& x, const Values<S>& w) const {
    const int ng = net.out();
    std::vector<S> M(at(4L * ng));
    for (int e = 0; e < n; ++e) {
      const std::vector<S> g = embed(x[0][at(e)], x[1][at(e)], combination[at(e)], w);
      for (int r = 0; r < 4; ++r)
        for (int c = 0; c < ng; ++c) M[at(static_cast<long>(r) * ng + c)] += x[0][at(static_cast<long>(r) * n + e)] * g[at(c)];
    }
    for (int r = 0; r < 4; ++r)
      for (int c = 0; c < ng; ++c) {
        S& v = M[at(static_cast<long>(r) * ng + c)];
        if (!pad_R.empty()) v += p1 * pad_R[at(r)] * w[net.nfolded() + 1][at(c)];
        v /= static_cast<double>(nsel);
      }
    Values<S> D(1);
    for (int c = 0; c < ng; ++c)
      for (int a = 0; a < axis; ++a) {
        S sum = 0;
        for (int r = 0; r < 4; ++r) sum += M[at(static_cast<long>(r) * ng + c)] * M[at(static_cast<long>(r) * ng + a)];
        D[0].push_back(sum);
      }
    return D;
  }
  template <class T>
  struct Arrays {
    using W = Real<T>;
    Arrays(const Repinit& op, const BlocksOf<T>& x, int m)
        : net(op.net),
          R(x[0], 4, op.n, m, 0),
          sw(x[1], 1, op.n, m, 0),
          pad_R(op.pad_R),
          pad_G(op.pad_G),
          gate(op.gate, op.net.ncomb, op.net.out()),
          index(op.combination, m) {
      p.net = net.net;
      p.ng = op.net.out();
      p.axis = op.axis;
      p.inv_nsel = static_cast<W>(1.0 / op.nsel);
      p.gate = op.gate.empty() ? nullptr : static_cast<W*>(gate);
      p.gate_switch = op.gate_switch;
      p.ncombinations = op.net.ncomb;
      p.table = op.series ? op.series->table<W>() : nullptr;
      p.quintic = op.quintic ? op.quintic->table<W>() : nullptr;
      if (!op.pad_R.empty()) pad = {static_cast<W>(op.p1 / op.nsel), pad_R, pad_G};
    }
    PreparedNet<W> net;
    Lanes<T> R, sw;
    Guarded<W> pad_R, pad_G;
    GateRows<W> gate;
    Combinations<W> index;
    dpa2::RepinitParams<W> p;
    dpa2::RepinitPad<W> pad;
  };
  template <class T>
  BlocksOf<T> forward(const Kernels<T>& k, const BlocksOf<T>& x) const {
    const int m = padded<T>(n), ng = net.out(), ngp = padded<T>(ng);
    Arrays<T> a(*this, x, m);
    dpa2::Arena arena;
    Guarded<T> D(static_cast<long>(ng) * axis), M(4L * ngp);
    k.repinit(a.p, n, m, D, M, a.R, a.sw, a.index, a.pad, arena);
    for (int c = ng; c < ngp; ++c)
      for (int r = 0; r < 4; ++r) CHECK(M(static_cast<long>(r) * ngp + c) == T(0));
    T* G = nullptr;
    k.repinit_embed(a.p, m, &G, a.R, a.sw, a.index, arena);
    const Blocks w = weights();
    for (int e = 0; e < n; ++e) {
      const Vector g = embed(static_cast<double>(x[0][at(e)]), static_cast<double>(x[1][at(e)]), combination[at(e)], w);
      for (int c = 0; c < ng; ++c)
        CHECK_NEAR(static_cast<double>(G[static_cast<long>(c) * m + e]), g[at(c)], sizeof(Real<T>) == 8 ? 1e-13 : 1e-5);
    }
    return {D.values()};
  }
  /// Room for what the backward gives.
  template <class T>
  struct Outputs {
    using W = Real<T>;
    Outputs(const Repinit& op, int m)
        : dR(4L * m, T(start_value)),
          dsw(m, T(start_value)),
          gate(Vector(), op.net.ncomb, op.net.out()),
          pad_G(padded<W>(op.net.out())),
          net(op.net),
          series(op.series ? op.series->table<W>() : nullptr) {
      std::fill_n(gate.data(), static_cast<long>(op.net.ncomb) * padded<W>(op.net.out()), static_cast<W>(start_value));
      std::fill_n(pad_G.data(), padded<W>(op.net.out()), static_cast<W>(start_value));
      g.net = net.g;
      if (op.series) g.series = series.data();
      if (!op.gate.empty()) g.gate = gate.data();
      if (!op.pad_G.empty()) g.pad_G = pad_G.data();
    }
    Blocks weights(const Repinit& op) const {
      const int ng = op.net.out();
      Blocks w = net.blocks();
      if (op.series) op.series->add_gradient<W>(w, series);
      w.push_back(op.gate.empty() ? Vector() : gate.rows(op.net.ncomb, ng, padded<W>(ng), start_value));
      w.push_back(op.pad_G.empty() ? Vector() : pad_G.values(ng, start_value));
      return w;
    }
    Guarded<T> dR, dsw;
    GateRows<W> gate;
    Guarded<W> pad_G;
    NetGradient<W> net;
    CoefficientGradient<W> series;
    dpa2::RepinitGradient<W> g;
  };
  template <class T>
  BlocksOf<T> backward(const Kernels<T>& k, const BlocksOf<T>& x, const BlocksOf<T>& dy, Blocks* dw = nullptr) const {
    const int m = padded<T>(n);
    Arrays<T> a(*this, x, m);
    dpa2::Arena arena;
    Guarded<T> dD(dy[0]);
    Outputs<T> out(*this, m);
    k.repinit_backward(a.p, n, m, out.dR, out.dsw, dw != nullptr ? &out.g : nullptr, dD, nullptr, a.R, a.sw, a.index, a.pad, arena);
    if (dw != nullptr) {
      *dw = out.weights(*this);
      Outputs<T> alone(*this, m), one(*this, m);  // what is not wanted changes nothing
      k.repinit_backward(a.p, n, m, nullptr, nullptr, &alone.g, dD, nullptr, a.R, a.sw, a.index, a.pad, arena);
      close(*dw, alone.weights(*this), sizeof(Real<T>) == 8 ? 1e-12 : 1e-5, "gradients of weights alone");
      k.repinit_backward(a.p, n, m, one.dR, nullptr, nullptr, dD, nullptr, a.R, a.sw, a.index, a.pad, arena);
      k.repinit_backward(a.p, n, m, nullptr, one.dsw, nullptr, dD, nullptr, a.R, a.sw, a.index, a.pad, arena);
      for (int e = 0; e < 4 * m; ++e) CHECK(one.dR(e) == out.dR(e) && one.dsw(e % m) == out.dsw(e % m));
    }
    return {out.dR.rows(4, n, m, start_value), out.dsw.values(n, start_value)};
  }
};

struct ThreeBody {
  Net net;
  int n, ntypes, nsel;
  std::vector<int> types;
  Vector v, sw;  // (3, n), (n)
  Vector gate;   // (ntypes^2, n3), row a*ntypes + b, or empty
  bool gate_switch;
  double p3 = 0;
  double pad_v[3] = {0, 0, 0};
  int pad_type = 0;
  std::shared_ptr<const Series> series = nullptr;
  std::shared_ptr<const Table> quintic = nullptr;

  Blocks inputs() const { return {v, sw}; }
  /// Those of the network, and the gate.
  Blocks weights() const {
    Blocks w = net.folded();
    w.push_back(gate);
    return w;
  }
  template <class S>
  Values<S> reference(const Values<S>& x, const Values<S>& w) const {
    Values<S> Q{std::vector<S>(at(net.out()))};
    const int all = p3 > 0 ? n + 1 : n;  // the padded slots are one more neighbour
    for (int j = 0; j < all; ++j)
      for (int k = 0; k < all; ++k) {
        S e = 0;
        for (int c = 0; c < 3; ++c)
          e += (j < n ? x[0][at(static_cast<long>(c) * n + j)] : S(pad_v[c])) *
               (k < n ? x[0][at(static_cast<long>(c) * n + k)] : S(pad_v[c]));
        const int pair = (j < n ? types[at(j)] : pad_type) * ntypes + (k < n ? types[at(k)] : pad_type);
        const S c = !gate_switch ? S(1) : j < n && k < n ? x[1][at(j)] * x[1][at(k)] : S(0);
        const double weight = (j < n ? 1.0 : p3) * (k < n ? 1.0 : p3) / (static_cast<double>(nsel) * nsel);
        std::vector<S> H = quintic ? (*quintic)(e, gate.empty() ? pair : 0) : net(e, pair, w, 0);
        for (std::size_t i = 0; i < H.size(); ++i) {
          if (!gate.empty()) H[i] *= 1.0 + w[net.nfolded()][at(pair) * H.size() + i] * c;
          Q[0][i] += weight * e * H[i];
        }
      }
    return Q;
  }
  /// The same for both orders: half of each.
  Vector symmetric(const Vector& g) const {
    const long n3 = net.out();
    Vector both;
    for (int a = 0; a < ntypes; ++a)
      for (int b = 0; b < ntypes; ++b)
        for (long c = 0; c < n3; ++c) both.push_back(0.5 * (g[at((a * ntypes + b) * n3 + c)] + g[at((b * ntypes + a) * n3 + c)]));
    return both;
  }
  template <class T>
  struct Arrays {
    using W = Real<T>;
    Arrays(const ThreeBody& op, const BlocksOf<T>& x, int m)
        : net(op.net),
          v(x[0], 3, op.n, m, 0),
          sw(x[1], 1, op.n, m, 0),
          gate(op.gate.empty() ? Vector() : op.symmetric(op.gate), op.ntypes * op.ntypes, op.net.out()),
          types(op.types) {
      p.net = net.net;
      p.n3 = op.net.out();
      p.ntypes = op.ntypes;
      p.inv_nsel_squared = static_cast<W>(1.0 / (static_cast<double>(op.nsel) * op.nsel));
      p.gate = op.gate.empty() ? nullptr : static_cast<W*>(gate);
      p.gate_switch = op.gate_switch;
      p.table = op.series ? op.series->table<W>() : nullptr;
      p.quintic = op.quintic ? op.quintic->table<W>() : nullptr;
      pad.multiplicity = static_cast<W>(op.p3);
      for (int c = 0; c < 3; ++c) pad.v[c] = static_cast<W>(op.pad_v[c]);
      pad.type = op.pad_type;
    }
    PreparedNet<W> net;
    Lanes<T> v, sw;
    GateRows<W> gate;
    Guarded<int> types;
    dpa2::ThreeBodyParams<W> p;
    dpa2::ThreeBodyPad<W> pad;
  };
  template <class T>
  BlocksOf<T> forward(const Kernels<T>& k, const BlocksOf<T>& x) const {
    const int m = padded<T>(n);
    Arrays<T> a(*this, x, m);
    dpa2::Arena arena;
    Guarded<T> Q(net.out());
    k.three_body(a.p, n, m, Q, a.v, a.sw, a.types, a.pad, arena);
    return {Q.values()};
  }
  template <class T>
  struct Outputs {
    using W = Real<T>;
    Outputs(const ThreeBody& op, int m)
        : dv(3L * m, T(start_value)),
          dsw(m, T(start_value)),
          gate(Vector(), op.ntypes * op.ntypes, op.net.out()),
          net(op.net),
          series(op.series ? op.series->table<W>() : nullptr) {
      std::fill_n(gate.data(), static_cast<long>(op.ntypes) * op.ntypes * padded<W>(op.net.out()), static_cast<W>(start_value));
      g.net = net.g;
      if (op.series) g.series = series.data();
      if (!op.gate.empty()) g.gate = gate.data();
    }
    Blocks weights(const ThreeBody& op) const {
      const int n3 = op.net.out();
      Blocks w = net.blocks();
      if (op.series) op.series->add_gradient<W>(w, series);
      w.push_back(op.gate.empty() ? Vector() : op.symmetric(gate.rows(op.ntypes * op.ntypes, n3, padded<W>(n3), start_value)));
      return w;
    }
    Guarded<T> dv, dsw;
    GateRows<W> gate;
    NetGradient<W> net;
    CoefficientGradient<W> series;
    dpa2::ThreeBodyGradient<W> g;
  };
  template <class T>
  BlocksOf<T> backward(const Kernels<T>& k, const BlocksOf<T>& x, const BlocksOf<T>& dy, Blocks* dw = nullptr) const {
    const int m = padded<T>(n);
    Arrays<T> a(*this, x, m);
    dpa2::Arena arena;
    Guarded<T> dQ(dy[0]);
    Outputs<T> out(*this, m);
    k.three_body_backward(a.p, n, m, out.dv, out.dsw, dw != nullptr ? &out.g : nullptr, dQ, a.v, a.sw, a.types, a.pad, arena);
    for (int e = n; e < m; ++e) CHECK(out.dsw(e) == T(start_value));
    if (dw != nullptr) {
      *dw = out.weights(*this);
      Outputs<T> alone(*this, m), one(*this, m);  // what is not wanted changes nothing
      k.three_body_backward(a.p, n, m, nullptr, nullptr, &alone.g, dQ, a.v, a.sw, a.types, a.pad, arena);
      close(*dw, alone.weights(*this), sizeof(Real<T>) == 8 ? 1e-12 : 1e-5, "gradients of weights alone");
      k.three_body_backward(a.p, n, m, one.dv, nullptr, nullptr, dQ, a.v, a.sw, a.types, a.pad, arena);
      k.three_body_backward(a.p, n, m, nullptr, one.dsw, nullptr, dQ, a.v, a.sw, a.types, a.pad, arena);
      for (int e = 0; e < 3 * m; ++e) CHECK(one.dv(e) == out.dv(e) && one.dsw(e % m) == out.dsw(e % m));
    }
    return {out.dv.rows(3, n, m, start_value), out.dsw.values(n, start_value)};
  }
};

}  // namespace operation
