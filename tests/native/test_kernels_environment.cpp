// The operations on the edges of a centre that lie on the lanes: env_mat, embedding networks, repinit, three-body.
#include <memory>

#include "operation.hpp"

namespace {

using namespace operation;
using dpa2::Activation;
using dpa2::Kernels;

/// Rows (rows, n) as lanes (rows, m).
template <class T>
struct Lanes : Guarded<T> {
  Lanes(const Vector& v, int rows, int n, int m, double fill) : Guarded<T>(static_cast<long>(rows) * m) { this->set_rows(v, rows, n, m, fill); }
};

struct EnvMat {
  int n;
  Vector d;  // (3, n)
  double rs, rc, protection;
  Vector mean, std;

  Blocks inputs() const { return {d}; }
  template <class S>
  Values<S> reference(const Values<S>& x) const {
    Values<S> y(2);
    y[0].resize(at(4L * n));
    for (int e = 0; e < n; ++e) {
      S v[3], rr = 0;
      for (int k = 0; k < 3; ++k) {
        v[k] = x[0][at(static_cast<long>(k) * n + e)];
        rr += v[k] * v[k];
      }
      const S r = std::sqrt(rr), q = r + protection;
      S u = (r - rs) / (rc - rs);
      if (real(u) < 0) u = 0;
      if (real(u) > 1) u = 1;
      const S sw = 1.0 + u * u * u * (-6.0 * u * u + 15.0 * u - 10.0);
      for (int k = 0; k < 4; ++k)
        y[0][at(static_cast<long>(k) * n + e)] = ((k == 0 ? sw / q : sw * v[k - 1] / (q * q)) - mean[at(k)]) / std[at(k)];
      y[1].push_back(sw);
    }
    return y;
  }
  template <class T>
  struct Arrays {
    Arrays(const EnvMat& op, const Blocks& x, int m)
        : d(x[0], 3, op.n, m, 0), r(m, T(1)), mean(op.mean), inv_std(4L),
          cut{static_cast<T>(op.rs), static_cast<T>(1.0 / (op.rc - op.rs)), static_cast<T>(op.protection)} {
      for (int e = 0; e < op.n; ++e) {
        double rr = 0;
        for (int k = 0; k < 3; ++k) rr += x[0][at(static_cast<long>(k) * op.n + e)] * x[0][at(static_cast<long>(k) * op.n + e)];
        r(e) = static_cast<T>(std::sqrt(rr));
      }
      for (int k = 0; k < 4; ++k) inv_std(k) = static_cast<T>(1.0 / op.std[at(k)]);
    }
    Lanes<T> d;
    Guarded<T> r, mean, inv_std;
    dpa2::math::Cutoff<T> cut;
  };
  template <class T>
  Blocks forward(const Kernels<T>& k, const Blocks& x) const {
    const int m = padded<T>(n);
    Arrays<T> a(*this, x, m);
    Guarded<T> R(4L * m), sw(m);
    k.env_mat(n, m, R, sw, a.d, a.r, a.cut, a.mean, a.inv_std);
    for (int e = n; e < m; ++e)
      for (int c = 0; c < 4; ++c) CHECK(R(static_cast<long>(c) * m + e) == T(0) && sw(e) == T(0));
    return {R.rows(4, n, m), sw.values(n)};
  }
  template <class T>
  Blocks backward(const Kernels<T>& k, const Blocks& x, const Blocks& dy) const {
    const int m = padded<T>(n);
    Arrays<T> a(*this, x, m);
    Lanes<T> dR(dy[0], 4, n, m, garbage), dsw(dy[1], 1, n, m, garbage);
    Guarded<T> gamma(3L * m, static_cast<T>(start_value));
    k.env_mat_backward(m, gamma, dR, dsw, a.d, a.r, a.cut, a.inv_std);
    return {gamma.rows(3, n, m, start_value)};
  }
};

void test_env_mat(const std::string& level) {
  Random random(1);
  for (const int n : {0, 1, 2, 7, 8, 17})
    for (const double protection : {0.0, 0.25}) {
      EnvMat op{n, random.vector(3L * n), 1.0, 4.0, protection, random.vector(4), random.vector(4, 0.5, 2.0)};
      for (int e = 0; e < n; ++e) {  // inside, in and beyond the range of the switch
        const double length = e % 4 == 0 ? random(0.5, 0.9) : e % 4 == 3 ? random(4.1, 5.0) : random(1.1, 3.9);
        double rr = 0;
        for (int k = 0; k < 3; ++k) rr += op.d[at(static_cast<long>(k) * n + e)] * op.d[at(static_cast<long>(k) * n + e)];
        for (int k = 0; k < 3; ++k) {
          double& v = op.d[at(static_cast<long>(k) * n + e)];
          v = static_cast<float>(v * length / std::sqrt(rr));
        }
      }
      Bounds bounds;
      bounds.single = 1e-5;  // 1/(rcut - rcut_smth) and the distance are rounded before the switch's fifth power
      check_operation(op, "env_mat", level, bounds);
    }
  // At r = 0 the derivative of r is taken as zero: only the vector part moves.
  const Kernels<double>& k = dpa2::kernels<double>(level);
  const dpa2::math::Cutoff<double> cut{1.0, 1.0 / 3.0, 0.5};
  Guarded<double> d(24, 0.0), r(8, 0.0), R(32), sw(8), gamma(24, 0.0), dR(32, 1.0), dsw(8, 1.0), mean(4, 0.0), inv_std(4, 2.0);
  k.env_mat(1, 8, R, sw, d, r, cut, mean, inv_std);
  k.env_mat_backward(8, gamma, dR, dsw, d, r, cut, inv_std);
  CHECK(R(0) == 4.0 && R(8) == 0.0 && sw(0) == 1.0);
  for (int x = 0; x < 3; ++x) CHECK(gamma(8L * x) == 8.0);
}

/// A network on [s, table row of the combination], or on s alone (table empty).
struct Net {
  Activation kind = Activation::tanh;
  std::vector<int> widths;  // of the layers
  int ncomb = 1;
  Vector table;             // (ncomb, in0 - 1)
  Blocks w, b, idt;         // per layer; idt empty or one per layer (empty where the layer has no skip)

  int in0() const { return 1 + static_cast<int>(table.size()) / ncomb; }
  int in(std::size_t l) const { return l == 0 ? in0() : widths[l - 1]; }
  int skip(std::size_t l) const { return widths[l] == in(l) ? 1 : widths[l] == 2 * in(l) ? 2 : 0; }
  int out() const { return widths.back(); }

  Net(Random& random, std::vector<int> layer_widths, int combinations, int extra, bool scaled, Activation activation = Activation::tanh)
      : kind(activation), widths(std::move(layer_widths)), ncomb(combinations), table(random.vector(static_cast<long>(combinations) * extra)) {
    for (std::size_t l = 0; l < widths.size(); ++l) {
      w.push_back(random.vector(static_cast<long>(in(l)) * widths[l]));
      b.push_back(random.vector(widths[l]));
      idt.push_back(scaled && skip(l) != 0 ? random.vector(widths[l], 0.3, 1.0) : Vector());
    }
  }

  template <class S>
  std::vector<S> operator()(S s, int combination) const {
    std::vector<S> x{s};
    for (int i = 1; i < in0(); ++i) x.push_back(table[at(static_cast<long>(combination) * (in0() - 1) + i - 1)]);
    for (std::size_t l = 0; l < widths.size(); ++l) {
      std::vector<S> y = product(x, w[l], 1, in(l), widths[l]);
      for (std::size_t c = 0; c < y.size(); ++c) {
        y[c] = phi(kind, 3.0, y[c] + b[l][c]);
        if (!idt[l].empty()) y[c] *= idt[l][c];
        if (skip(l) != 0) y[c] += x[c % x.size()];
      }
      x = y;
    }
    return x;
  }
};

/// The same for the kernels.
template <class T>
struct PreparedNet {
  explicit PreparedNet(const Net& source) {
    const auto own = [&](const Vector& v) -> const T* {
      arrays.push_back(std::make_unique<Guarded<T>>(v));
      return *arrays.back();
    };
    for (std::size_t l = 0; l < source.widths.size(); ++l) {
      dpa2::EmbeddingLayer<T> layer;
      layer.in = source.in(l);
      layer.out = source.widths[l];
      layer.skip = source.skip(l);
      layer.w = own(source.w[l]);
      layer.wt = own(transpose(source.w[l], layer.in, layer.out));
      layer.b = own(source.b[l]);
      layer.idt = source.idt[l].empty() ? nullptr : own(source.idt[l]);
      layers.push_back(layer);
    }
    const int in0 = source.in0(), out0 = source.widths[0];
    Vector term, skip;
    for (int row = 0; row < source.ncomb; ++row) {
      skip.push_back(NAN);  // stands for s and is never read
      for (int i = 1; i < in0; ++i) skip.push_back(source.table[at(static_cast<long>(row) * (in0 - 1) + i - 1)]);
      for (int c = 0; c < out0; ++c) {
        double sum = source.b[0][at(c)];
        for (int i = 1; i < in0; ++i) sum += skip[skip.size() - at(in0) + at(i)] * source.w[0][at(static_cast<long>(i) * out0 + c)];
        term.push_back(sum);
      }
    }
    net.nlayers = static_cast<int>(layers.size());
    net.layers = layers.data();
    net.typed = in0 > 1;
    net.w_scalar = own(Vector(source.w[0].begin(), source.w[0].begin() + out0));
    net.type_term = own(term);
    net.type_skip = own(skip);
    net.act = activation<T>(source.kind);
  }
  std::vector<std::unique_ptr<Guarded<T>>> arrays;
  std::vector<dpa2::EmbeddingLayer<T>> layers;
  dpa2::EmbeddingNet<T> net;
};

template <class T>
struct Combinations : Guarded<int> {
  Combinations(const std::vector<int>& v, int m) : Guarded<int>(m, 0) {
    for (std::size_t i = 0; i < v.size(); ++i) (*this)(static_cast<long>(i)) = v[i];
  }
};

struct EmbeddingNet {
  Net net;
  std::vector<int> combination;
  Vector s;

  int n() const { return static_cast<int>(s.size()); }
  Blocks inputs() const { return {s}; }
  template <class S>
  Values<S> reference(const Values<S>& x) const {
    Values<S> y(1);
    y[0].resize(at(static_cast<long>(net.out()) * n()));
    for (int e = 0; e < n(); ++e) {
      const std::vector<S> g = net(x[0][at(e)], combination[at(e)]);
      for (int c = 0; c < net.out(); ++c) y[0][at(static_cast<long>(c) * n() + e)] = g[at(c)];
    }
    return y;
  }
  template <class T>
  Blocks forward(const Kernels<T>& k, const Blocks& x) const {
    const int m = padded<T>(n());
    const PreparedNet<T> p(net);
    dpa2::Arena arena;
    dpa2::EmbeddingTape<T> tape;
    Lanes<T> in(x[0], 1, n(), m, garbage);
    Combinations<T> index(combination, m);
    k.embedding_layout(p.net, m, false, arena, tape);
    k.embedding(p.net, m, tape, false, in, index);
    const T* y = tape.y[p.net.nlayers - 1];
    Vector out;
    for (int c = 0; c < net.out(); ++c)
      for (int e = 0; e < n(); ++e) out.push_back(static_cast<double>(y[static_cast<long>(c) * m + e]));
    return {out};
  }
  template <class T>
  Blocks backward(const Kernels<T>& k, const Blocks& x, const Blocks& dy) const {
    const int m = padded<T>(n());
    const PreparedNet<T> p(net);
    dpa2::Arena arena;
    dpa2::EmbeddingTape<T> tape;
    Lanes<T> in(x[0], 1, n(), m, garbage), g(dy[0], net.out(), n(), m, garbage);
    Combinations<T> index(combination, m);
    Guarded<T> ds(m);
    k.embedding_layout(p.net, m, true, arena, tape);
    k.embedding(p.net, m, tape, true, in, index);
    k.embedding_backward(p.net, m, ds, g, tape, arena);
    return {ds.values(n())};
  }
};

struct Repinit {
  Net net;
  int n, axis, nsel;
  std::vector<int> combination;
  Vector R, sw;          // (4, n), (n)
  Vector gate;           // (ncomb_gate, ng) or empty
  bool gate_switch;
  double p1 = 0;         // padded slots
  Vector pad_R, pad_G;   // or empty

  Blocks inputs() const { return {R, sw}; }
  template <class S>
  std::vector<S> embed(S s, S w, int c) const {
    std::vector<S> g = net(s, gate.empty() ? c : 0);
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
        : net(op.net), R(x[0], 4, op.n, m, 0), sw(x[1], 1, op.n, m, 0), gate(op.gate), pad_R(op.pad_R), pad_G(op.pad_G), index(op.combination, m) {
      p.net = net.net;
      p.ng = op.net.out();
      p.axis = op.axis;
      p.inv_nsel = static_cast<T>(1.0 / op.nsel);
      p.gate = op.gate.empty() ? nullptr : static_cast<T*>(gate);
      p.gate_switch = op.gate_switch;
      if (!op.pad_R.empty()) pad = {static_cast<T>(op.p1 / op.nsel), pad_R, pad_G};
    }
    PreparedNet<T> net;
    Lanes<T> R, sw;
    Guarded<T> gate, pad_R, pad_G;
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
  Vector v, sw;        // (3, n), (n)
  Vector gate;         // (ntypes^2, n3), row a*ntypes + b, or empty
  bool gate_switch;
  double p3 = 0;
  double pad_v[3] = {0, 0, 0};
  int pad_type = 0;

  Blocks inputs() const { return {v, sw}; }
  template <class S>
  Values<S> reference(const Values<S>& x) const {
    Values<S> Q{std::vector<S>(at(net.out()))};
    const int all = p3 > 0 ? n + 1 : n;  // the padded slots are one more neighbour
    for (int j = 0; j < all; ++j)
      for (int k = 0; k < all; ++k) {
        S e = 0;
        for (int c = 0; c < 3; ++c)
          e += (j < n ? x[0][at(static_cast<long>(c) * n + j)] : S(pad_v[c])) * (k < n ? x[0][at(static_cast<long>(c) * n + k)] : S(pad_v[c]));
        const int pair = (j < n ? types[at(j)] : pad_type) * ntypes + (k < n ? types[at(k)] : pad_type);
        const S c = !gate_switch ? S(1) : j < n && k < n ? x[1][at(j)] * x[1][at(k)] : S(0);
        const double weight = (j < n ? 1.0 : p3) * (k < n ? 1.0 : p3) / (static_cast<double>(nsel) * nsel);
        std::vector<S> H = net(e, gate.empty() ? pair : 0);
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
        : net(op.net), v(x[0], 3, op.n, m, 0), sw(x[1], 1, op.n, m, 0), gate(static_cast<long>(op.gate.size())), types(op.types) {
      const int nt = op.ntypes;
      const long n3 = op.net.out();
      p.net = net.net;
      p.n3 = op.net.out();
      p.ntypes = nt;
      p.inv_nsel2 = static_cast<T>(1.0 / (static_cast<double>(op.nsel) * op.nsel));
      if (!op.gate.empty()) {
        for (int a = 0; a < nt; ++a)
          for (int b = 0; b < nt; ++b)
            for (long c = 0; c < n3; ++c)
              gate((a * nt + b) * n3 + c) = static_cast<T>(0.5 * (op.gate[at((a * nt + b) * n3 + c)] + op.gate[at((b * nt + a) * n3 + c)]));
        p.gate = gate;
      }
      p.gate_switch = op.gate_switch;
      pad.multiplicity = static_cast<T>(op.p3);
      for (int c = 0; c < 3; ++c) pad.v[c] = static_cast<T>(op.pad_v[c]);
      pad.type = op.pad_type;
    }
    PreparedNet<T> net;
    Lanes<T> v, sw;
    Guarded<T> gate;
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

// No skip; equal and doubling ones; in the first layer on [s, types] (3 -> 3 -> 6) and on s alone (1 -> 2).
const std::vector<std::vector<int>> widths = {{4}, {3, 6, 7}, {6, 12, 12}, {1, 2, 2}, {2, 5}, {5, 10, 20, 20}};

void test_embedding(const std::string& level) {
  Random random(2);
  int variant = 0;
  for (const std::vector<int>& w : widths)
    for (const int extra : {0, 2})
      for (const int n : {0, 1, 2, 9, 33}) {
        const bool scaled = ++variant % 2 == 0;
        const Activation kind = variant % 3 == 0 ? Activation::silu : Activation::tanh;
        EmbeddingNet op{Net(random, w, 4, extra, scaled, kind), random.integers(n, 4), random.vector(n)};
        check_operation(op, "embedding_net " + std::to_string(variant), level);
      }
}

void test_repinit(const std::string& level) {
  Random random(3);
  int variant = 0;
  for (const std::vector<int>& w : widths)
    for (const int n : {0, 1, 2, 13})
      for (int mode = 0; mode < 3; ++mode) {  // concat, strip, strip with the switch
        ++variant;
        const int ng = w.back(), ncomb = 4;
        Repinit op{Net(random, w, ncomb, mode == 0 ? 2 : 0, variant % 2 == 0), n, std::min(ng, 3), 8, random.integers(n, ncomb),
                   random.vector(4L * n), random.vector(n, 0.0, 1.0), {}, mode == 2, 0, {}, {}};
        if (mode > 0) op.gate = random.vector(static_cast<long>(ncomb) * ng);
        if (variant % 4 == 0) {
          op.p1 = 5;
          op.pad_R = random.vector(4);
          op.pad_G = random.vector(ng);
        }
        check_operation(op, "repinit " + std::to_string(variant), level);
      }
}

void test_three_body(const std::string& level) {
  Random random(4);
  int variant = 0;
  for (const int n : {0, 1, 2, 5, 24})  // 24 edges: more pairs than one chunk holds
    for (int mode = 0; mode < 3; ++mode)
      for (const double p3 : {0.0, 3.0}) {
        ++variant;
        const std::vector<int>& w = widths[at(variant) % 4];
        const int nt = 2;
        ThreeBody op{Net(random, w, nt * nt, mode == 0 ? 2 : 0, variant % 2 == 0), n, nt, 4, random.integers(n, nt), random.vector(3L * n),
                     random.vector(n, 0.0, 1.0), {}, mode == 2, p3, {random(), random(), random()}, 1};
        if (mode > 0) op.gate = random.vector(static_cast<long>(nt) * nt * w.back());
        check_operation(op, "three_body " + std::to_string(variant), level);
      }
}

}  // namespace

int main() {
  for_levels([](const std::string& level) {
    test_env_mat(level);
    test_embedding(level);
    test_repinit(level);
    test_three_body(level);
  });
  return check::finish();
}
