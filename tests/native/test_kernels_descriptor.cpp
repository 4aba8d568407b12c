// The first descriptor: repinit and the three-body sum, with their networks evaluated, as series and as tables.
#include "graph/series.hpp"
#include "graph/table.hpp"
#include "network.hpp"

namespace {

using namespace operation;
using dpa2::Kernels;

/// A network as local series on [lo, hi), in both precisions; tables once per network.
struct Series {
  Series(const Net& net, int ncurves, double lo, double hi, int pair_types = 0) {
    const PreparedNet<double> source(net);
    CHECK(dpa2::build_series(storage, f64, source.net, ncurves, lo, hi, pair_types));
    CHECK(dpa2::build_series(storage, f32, source.net, ncurves, lo, hi, pair_types));
  }
  template <class T>
  const dpa2::SeriesTable<T>* table() const {
    if constexpr (sizeof(T) == 8)
      return &f64;
    else
      return &f32;
  }
  dpa2::Storage storage;
  dpa2::SeriesTable<double> f64;
  dpa2::SeriesTable<float> f32;
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

/// A series is exact to rounding; its derivative loses a digit or two to the slope of the last terms.
Bounds series_bounds() {
  Bounds bounds;
  bounds.forward = 1e-13;
  bounds.adjoint = 1e-11;
  bounds.single = 1e-5;
  return bounds;
}

/// The third derivative of a table jumps at the nodes: central differences with a short step.
Bounds table_bounds() {
  Bounds bounds;
  bounds.step = 1e-5;
  return bounds;
}

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
  template <class S>
  std::vector<S> embed(S s, S w, int c) const {
    const int curve = gate.empty() ? c : 0;
    std::vector<S> g = quintic ? (*quintic)(s, curve) : net(s, curve);
    if (!gate.empty())
      for (std::size_t i = 0; i < g.size(); ++i) g[i] *= 1.0 + gate[at(c) * g.size() + i] * (gate_switch ? w : S(1));
    return g;
  }
  template <class S>
  Values<S> reference(const Values<S>& x) const {
    const int ng = net.out();
    std::vector<S> M(at(4L * ng));
    for (int e = 0; e < n; ++e) {
      const std::vector<S> g = embed(x[0][at(e)], x[1][at(e)], combination[at(e)]);
      for (int r = 0; r < 4; ++r)
        for (int c = 0; c < ng; ++c) M[at(static_cast<long>(r) * ng + c)] += x[0][at(static_cast<long>(r) * n + e)] * g[at(c)];
    }
    for (int r = 0; r < 4; ++r)
      for (int c = 0; c < ng; ++c) {
        S& v = M[at(static_cast<long>(r) * ng + c)];
        if (!pad_R.empty()) v += p1 * pad_R[at(r)] * pad_G[at(c)];
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
    Arrays(const Repinit& op, const Blocks& x, int m)
        : net(op.net),
          R(x[0], 4, op.n, m, 0),
          sw(x[1], 1, op.n, m, 0),
          gate(op.gate),
          pad_R(op.pad_R),
          pad_G(op.pad_G),
          rows(op.gate, op.net.ncomb, op.net.out()),
          index(op.combination, m) {
      p.net = net.net;
      p.ng = op.net.out();
      p.axis = op.axis;
      p.inv_nsel = static_cast<T>(1.0 / op.nsel);
      p.gate = op.gate.empty() ? nullptr : static_cast<T*>(gate);
      p.gate_switch = op.gate_switch;
      p.ncombinations = op.net.ncomb;
      p.table = op.series ? op.series->table<T>() : nullptr;
      p.quintic = op.quintic ? op.quintic->table<T>() : nullptr;
      p.gate_rows = op.gate.empty() ? nullptr : static_cast<T*>(rows);
      if (!op.pad_R.empty()) pad = {static_cast<T>(op.p1 / op.nsel), pad_R, pad_G};
    }
    PreparedNet<T> net;
    Lanes<T> R, sw;
    Guarded<T> gate, pad_R, pad_G;
    GateRows<T> rows;
    Combinations<T> index;
    dpa2::RepinitParams<T> p;
    dpa2::RepinitPad<T> pad;
  };
  template <class T>
  Blocks forward(const Kernels<T>& k, const Blocks& x) const {
    const int m = padded<T>(n), ng = net.out(), ngp = padded<T>(ng);
    Arrays<T> a(*this, x, m);
    dpa2::Arena arena;
    Guarded<T> D(static_cast<long>(ng) * axis), M(4L * ngp);
    k.repinit(a.p, n, m, D, M, a.R, a.sw, a.index, a.pad, arena);
    for (int c = ng; c < ngp; ++c)
      for (int r = 0; r < 4; ++r) CHECK(M(static_cast<long>(r) * ngp + c) == T(0));
    T* G = nullptr;
    k.repinit_embed(a.p, m, &G, a.R, a.sw, a.index, arena);
    for (int e = 0; e < n; ++e) {
      const Vector g = embed(x[0][at(e)], x[1][at(e)], combination[at(e)]);
      for (int c = 0; c < ng; ++c) CHECK_NEAR(G[static_cast<long>(c) * m + e], g[at(c)], sizeof(T) == 8 ? 1e-13 : 1e-5);
    }
    return {D.values()};
  }
  template <class T>
  Blocks backward(const Kernels<T>& k, const Blocks& x, const Blocks& dy) const {
    const int m = padded<T>(n);
    Arrays<T> a(*this, x, m);
    dpa2::Arena arena;
    Guarded<T> dD(dy[0]), dR(4L * m, static_cast<T>(start_value)), dsw(m, static_cast<T>(start_value));
    k.repinit_backward(a.p, n, m, dR, dsw, dD, a.R, a.sw, a.index, a.pad, arena);
    return {dR.rows(4, n, m, start_value), dsw.values(n, start_value)};
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
  template <class S>
  Values<S> reference(const Values<S>& x) const {
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
        std::vector<S> H = quintic ? (*quintic)(e, gate.empty() ? pair : 0) : net(e, gate.empty() ? pair : 0);
        for (std::size_t i = 0; i < H.size(); ++i) {
          if (!gate.empty()) H[i] *= 1.0 + gate[at(pair) * H.size() + i] * c;
          Q[0][i] += weight * e * H[i];
        }
      }
    return Q;
  }
  template <class T>
  struct Arrays {
    Arrays(const ThreeBody& op, const Blocks& x, int m)
        : net(op.net),
          v(x[0], 3, op.n, m, 0),
          sw(x[1], 1, op.n, m, 0),
          gate(static_cast<long>(op.gate.size())),
          rows(Vector(), op.ntypes * op.ntypes, op.net.out()),
          types(op.types) {
      const int nt = op.ntypes;
      const long n3 = op.net.out();
      p.net = net.net;
      p.n3 = op.net.out();
      p.ntypes = nt;
      p.inv_nsel_squared = static_cast<T>(1.0 / (static_cast<double>(op.nsel) * op.nsel));
      if (!op.gate.empty()) {
        for (int a = 0; a < nt; ++a)
          for (int b = 0; b < nt; ++b)
            for (long c = 0; c < n3; ++c)
              gate((a * nt + b) * n3 + c) = static_cast<T>(0.5 * (op.gate[at((a * nt + b) * n3 + c)] + op.gate[at((b * nt + a) * n3 + c)]));
        rows.set_rows(gate.values(), nt * nt, n3, padded<T>(op.net.out()), 0);
        p.gate = gate;
        p.gate_rows = rows;
      }
      p.gate_switch = op.gate_switch;
      p.table = op.series ? op.series->table<T>() : nullptr;
      p.quintic = op.quintic ? op.quintic->table<T>() : nullptr;
      pad.multiplicity = static_cast<T>(op.p3);
      for (int c = 0; c < 3; ++c) pad.v[c] = static_cast<T>(op.pad_v[c]);
      pad.type = op.pad_type;
    }
    PreparedNet<T> net;
    Lanes<T> v, sw;
    Guarded<T> gate;
    GateRows<T> rows;
    Guarded<int> types;
    dpa2::ThreeBodyParams<T> p;
    dpa2::ThreeBodyPad<T> pad;
  };
  template <class T>
  Blocks forward(const Kernels<T>& k, const Blocks& x) const {
    const int m = padded<T>(n);
    Arrays<T> a(*this, x, m);
    dpa2::Arena arena;
    Guarded<T> Q(net.out());
    k.three_body(a.p, n, m, Q, a.v, a.sw, a.types, a.pad, arena);
    return {Q.values()};
  }
  template <class T>
  Blocks backward(const Kernels<T>& k, const Blocks& x, const Blocks& dy) const {
    const int m = padded<T>(n);
    Arrays<T> a(*this, x, m);
    dpa2::Arena arena;
    Guarded<T> dQ(dy[0]), dv(3L * m, static_cast<T>(start_value)), dsw(m, static_cast<T>(start_value));
    k.three_body_backward(a.p, n, m, dv, dsw, dQ, a.v, a.sw, a.types, a.pad, arena);
    for (int e = n; e < m; ++e) CHECK(dsw(e) == static_cast<T>(start_value));
    return {dv.rows(3, n, m, start_value), dsw.values(n, start_value)};
  }
};

void test_repinit(const std::string& level) {
  Random random(3);
  int variant = 0;
  for (const std::vector<int>& w : network_widths)
    for (const int n : {0, 1, 2, 13})
      for (int mode = 0; mode < 3; ++mode) {  // concat, strip, strip with the switch
        ++variant;
        const int ng = w.back(), ncomb = 4;
        Repinit op{Net(random, w, ncomb, mode == 0 ? 2 : 0, variant % 2 == 0),
                   n,
                   std::min(ng, 3),
                   8,
                   random.integers(n, ncomb),
                   random.vector(4L * n),
                   random.vector(n, 0.0, 1.0),
                   {},
                   mode == 2,
                   0,
                   {},
                   {}};
        if (mode > 0) op.gate = random.vector(static_cast<long>(ncomb) * ng);
        if (variant % 4 == 0) {
          op.p1 = 5;
          op.pad_R = random.vector(4);
          op.pad_G = random.vector(ng);
        }
        const std::string name = "repinit " + std::to_string(variant);
        check_operation(op, name, level);
        for (const double range : {1.25, 0.6}) {  // all edges within the range of the series, or not all
          op.series = std::make_shared<Series>(op.net, mode == 0 ? ncomb : 1, -range, range);
          check_operation(op, name + " as series to " + std::to_string(range), level, series_bounds());
        }
        op.series = nullptr;
        for (const double step : {0.3125, 0.125}) {  // all edges within the table, or not all
          op.quintic = std::make_shared<Table>(random, mode == 0 ? ncomb : 1, ng, -4 * step, step);
          check_operation(op, name + " as table in steps of " + std::to_string(step), level, table_bounds());
        }
      }
}

void test_three_body(const std::string& level) {
  Random random(4);
  int variant = 0;
  for (const int n : {0, 1, 2, 5, 24})  // 24 edges: more pairs than one chunk holds
    for (int mode = 0; mode < 3; ++mode)
      for (const double p3 : {0.0, 3.0}) {
        ++variant;
        const std::vector<int>& w = network_widths[at(variant) % 4];
        const int nt = 2;
        ThreeBody op{Net(random, w, nt * nt, mode == 0 ? 2 : 0, variant % 2 == 0),
                     n,
                     nt,
                     4,
                     random.integers(n, nt),
                     random.vector(3L * n),
                     random.vector(n, 0.0, 1.0),
                     {},
                     mode == 2,
                     p3,
                     {random(), random(), random()},
                     1};
        if (mode > 0) op.gate = random.vector(static_cast<long>(nt) * nt * w.back());
        const std::string name = "three_body " + std::to_string(variant);
        check_operation(op, name, level);
        for (const double range : {3.25, 0.5}) {
          op.series = std::make_shared<Series>(op.net, mode == 0 ? nt * nt : 1, -range, range, mode == 0 ? nt : 0);
          check_operation(op, name + " as series to " + std::to_string(range), level, series_bounds());
        }
        op.series = nullptr;
        for (const double step : {0.8125, 0.125}) {
          op.quintic = std::make_shared<Table>(random, mode == 0 ? nt * nt : 1, w.back(), -4 * step, step);
          check_operation(op, name + " as table in steps of " + std::to_string(step), level, table_bounds());
        }
      }
}

}  // namespace

int main() {
  for_levels([](const std::string& level) {
    test_repinit(level);
    test_three_body(level);
  });
  return check::finish();
}
