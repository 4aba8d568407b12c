// The operations that gather from the neighbours and scatter to them, as the tests call them; and the fitting net.
#pragma once

#include <memory>

#include "operation.hpp"

namespace operation {

using dpa2::Activation;
using dpa2::Kernels;
using dpa2::Sum;

/// The rows that the edges of a centre use: their own, or those of the neighbours among `nall`, whose gradients go elsewhere.
struct Places {
  int nall = 0;               // 0: row e belongs to edge e
  std::vector<int> j, place;  // row of each edge; where the gradient of a row goes

  Places() = default;
  Places(Random& random, int n, int rows) : nall(rows), j(random.integers(n, rows)), place(random.permutation(rows)) {}
  bool indexed() const { return nall > 0; }
  long row(int e) const { return indexed() ? j[at(e)] : e; }
  long rows(int n) const { return indexed() ? nall : n; }
  std::vector<int> scatter() const {
    std::vector<int> s;
    for (const int r : j) s.push_back(place[at(r)]);
    return s;
  }
  /// Rows of width w, brought back from where they went.
  template <class N>
  std::vector<N> collect(const std::vector<N>& placed, long w) const {
    if (!indexed()) return placed;
    std::vector<N> v;
    for (const int p : place) v.insert(v.end(), placed.begin() + p * w, placed.begin() + (p + 1) * w);
    return v;
  }
};

struct Symmetrization {
  int n, nc, axis;
  Places places;
  Vector f, X;  // (n, 3), (rows, nc)

  Blocks inputs() const { return {f, X}; }
  template <class S>
  Values<S> reference(const Values<S>& x) const {
    std::vector<S> C(at(3L * nc));
    for (int e = 0; e < n; ++e)
      for (int d = 0; d < 3; ++d)
        for (int c = 0; c < nc; ++c) C[at(static_cast<long>(d) * nc + c)] += x[0][at(3L * e + d)] * x[1][at(places.row(e) * nc + c)];
    Values<S> gram(1);
    for (int a = 0; a < axis; ++a)
      for (int c = 0; c < nc; ++c) {
        S sum = 0;
        for (int d = 0; d < 3; ++d) sum += C[at(static_cast<long>(d) * nc + a)] * C[at(static_cast<long>(d) * nc + c)];
        gram[0].push_back(sum / 3.0);
      }
    return gram;
  }
  template <class T>
  BlocksOf<T> forward(const Kernels<T>& k, const BlocksOf<T>& x) const {
    const int np = padded<T>(nc);
    const long ld = np + padded<T>(1);  // rows may be part of wider ones
    Guarded<T> F(x[0], 1), C(3L * np), gram(static_cast<long>(axis) * np);
    Rows<T> rows(x[1], places.rows(n), nc, ld);
    Guarded<int> index(places.j);
    k.sym_moments(n, np, C, F, {rows, ld, places.indexed() ? static_cast<int*>(index) : nullptr});
    k.sym_gram(np, axis, gram, C);
    return {gram.rows(axis, nc, np)};
  }
  template <class T>
  BlocksOf<T> backward(const Kernels<T>& k, const BlocksOf<T>& x, const BlocksOf<T>& dy) const {
    const int np = padded<T>(nc);
    const long ld = np + padded<T>(1), count = places.rows(n);
    Guarded<T> F(x[0], 1), C(3L * np), dC(3L * np), df(3L * n, static_cast<T>(start_value), 1), dX(count * ld, static_cast<T>(start_value));
    Rows<T> rows(x[1], count, nc, ld), dgram(dy[0], axis, nc, np, 0);
    Guarded<int> index(places.j), scatter(places.scatter());
    const dpa2::EdgeRows<T> source{rows, ld, places.indexed() ? static_cast<int*>(index) : nullptr};
    k.sym_moments(n, np, C, F, source);
    k.sym_gram_backward(np, axis, dC, dgram, C);
    k.sym_moments_backward(n, np, df, dX, ld, places.indexed() ? static_cast<int*>(scatter) : nullptr, dC, F, source);
    for (long r = 0; r < count; ++r)
      for (long c = np; c < ld; ++c) CHECK(equal(dX(r * ld + c), static_cast<T>(start_value)));
    return {df.values(-1, start_value), places.collect(dX.rows(count, nc, ld, start_value), nc)};
  }
};

struct Conv {
  int n, na, nb;
  Places a_places, b_places;
  Vector a, b, s, P;  // (rows, na), (rows, nb), (n), (na, nb)

  Blocks inputs() const { return {a, b, s}; }
  Blocks weights() const { return {P}; }
  template <class S>
  Values<S> reference(const Values<S>& x, const Values<S>& w) const {
    const std::vector<S> y = product(x[0], w[0], a_places.rows(n), na, nb);
    Values<S> out{std::vector<S>(at(nb))};
    for (int e = 0; e < n; ++e)
      for (int c = 0; c < nb; ++c) out[0][at(c)] += x[2][at(e)] * y[at(a_places.row(e) * nb + c)] * x[1][at(b_places.row(e) * nb + c)];
    return out;
  }
  template <class T>
  struct Arrays {
    Arrays(const Conv& op, const BlocksOf<T>& x)
        : nap(padded<T>(op.na)),
          nbp(padded<T>(op.nb)),
          arows(op.a_places.rows(op.n)),
          brows(op.b_places.rows(op.n)),
          a(x[0], arows, op.na, nap),
          b(x[1], brows, op.nb, nbp),
          s(x[2], 1),
          P(op.P, op.na, op.nb, nap, nbp),
          Pt(transpose(op.P, op.na, op.nb), op.nb, op.na, nbp, nap),
          aindex(op.a_places.j),
          bindex(op.b_places.j) {
      ar = {a, nap, op.a_places.indexed() ? static_cast<int*>(aindex) : nullptr};
      br = {b, nbp, op.b_places.indexed() ? static_cast<int*>(bindex) : nullptr};
    }
    int nap, nbp;
    long arows, brows;
    Rows<T> a, b;
    Guarded<T> s;
    Panels<Real<T>> P, Pt;
    Guarded<int> aindex, bindex;
    dpa2::EdgeRows<T> ar, br;
  };
  template <class T>
  BlocksOf<T> forward(const Kernels<T>& k, const BlocksOf<T>& x) const {
    Arrays<T> v(*this, x);
    dpa2::Arena arena;
    Guarded<T> out(v.nbp);
    k.conv(n, out, v.ar, v.br, v.P.packed, v.s, arena);
    return {out.values(nb)};
  }
  template <class T>
  BlocksOf<T> backward(const Kernels<T>& k, const BlocksOf<T>& x, const BlocksOf<T>& dy, Blocks* dw = nullptr) const {
    using R = Real<T>;
    Arrays<T> v(*this, x);
    dpa2::Arena arena;
    Guarded<R> dP(static_cast<long>(v.nap) * v.nbp, static_cast<R>(start_value));
    Guarded<T> da(v.arows * v.nap, static_cast<T>(start_value)), db(v.brows * v.nbp, static_cast<T>(start_value)),
        ds(n, static_cast<T>(start_value), 1);
    Rows<T> dout(dy[0], 1, nb, v.nbp);
    Guarded<int> ascatter(a_places.scatter()), bscatter(b_places.scatter());
    k.conv_backward(n, da, v.nap, a_places.indexed() ? static_cast<int*>(ascatter) : nullptr, db, v.nbp,
                    b_places.indexed() ? static_cast<int*>(bscatter) : nullptr, ds, dw != nullptr ? static_cast<R*>(dP) : nullptr, dout,
                    v.ar, v.br, v.P.packed, v.Pt.packed, v.s, arena);
    if (dw != nullptr) *dw = {dP.rows(na, nb, v.nbp, start_value)};
    return {a_places.collect(da.rows(v.arows, na, v.nap, start_value), na), b_places.collect(db.rows(v.brows, nb, v.nbp, start_value), nb),
            ds.values(-1, start_value)};
  }
};

struct G1G1 {
  int n, n1, n2;
  Places places;
  Vector g1_i, g1, w, W;

  Blocks inputs() const { return {g1_i, g1, w}; }
  Blocks weights() const { return {W}; }
  template <class S>
  Values<S> reference(const Values<S>& x, const Values<S>& v) const {
    std::vector<S> y;
    for (int e = 0; e < n; ++e)
      for (int c = 0; c < n1; ++c) y.push_back(x[2][at(e)] * x[0][at(c)] * x[1][at(places.row(e) * n1 + c)]);
    return {product(y, v[0], n, n1, n2)};
  }
  template <class T>
  BlocksOf<T> forward(const Kernels<T>& k, const BlocksOf<T>& x) const {
    const int n1p = padded<T>(n1), n2p = padded<T>(n2);
    dpa2::Arena arena;
    Rows<T> own(x[0], 1, n1, n1p), rows(x[1], places.nall, n1, n1p);
    Guarded<T> sw(x[2], 1), U(static_cast<long>(n) * n2p);
    Panels<Real<T>> matrix(W, n1, n2, n1p, n2p);
    Guarded<int> index(places.j);
    k.g1g1(n, U, own, rows, index, matrix.packed, sw, arena);
    return {U.rows(n, n2, n2p)};
  }
  template <class T>
  BlocksOf<T> backward(const Kernels<T>& k, const BlocksOf<T>& x, const BlocksOf<T>& dy, Blocks* dw = nullptr) const {
    using R = Real<T>;
    const int n1p = padded<T>(n1), n2p = padded<T>(n2);
    dpa2::Arena arena;
    Rows<T> own(x[0], 1, n1, n1p), rows(x[1], places.nall, n1, n1p), dU(dy[0], n, n2, n2p);
    Guarded<T> sw(x[2], 1), dsw(n, static_cast<T>(start_value), 1), down(n1p, static_cast<T>(start_value)),
        drows(static_cast<long>(places.nall) * n1p, static_cast<T>(start_value));
    Panels<R> matrix(transpose(W, n1, n2), n2, n1, n2p, n1p);
    Guarded<int> index(places.j), scatter(places.scatter());
    Guarded<R> dW(static_cast<long>(n1p) * n2p, static_cast<R>(start_value));
    k.g1g1_backward(n, down, drows, scatter, dsw, dw != nullptr ? static_cast<R*>(dW) : nullptr, dU, own, rows, index, matrix.packed, sw,
                    arena);
    if (dw != nullptr) *dw = {dW.rows(n1, n2, n2p, start_value)};
    return {down.values(n1, start_value), places.collect(drows.rows(places.nall, n1, n1p, start_value), n1), dsw.values(-1, start_value)};
  }
};

struct Fitting {
  Activation kind;
  int m, in, out;
  std::vector<int> widths;
  Vector x;
  Blocks w, b, idt;
  Vector w_out, b_out;

  int before(std::size_t l) const { return l == 0 ? in : widths[l - 1]; }
  int skip(std::size_t l) const { return widths[l] == before(l) ? 1 : widths[l] == 2 * before(l) ? 2 : 0; }
  int last() const { return widths.empty() ? in : widths.back(); }

  Fitting(Random& random, Activation activation, int rows, int input, std::vector<int> layers, int output, bool scaled)
      : kind(activation), m(rows), in(input), out(output), widths(std::move(layers)), x(random.vector(static_cast<long>(rows) * input)) {
    for (std::size_t l = 0; l < widths.size(); ++l) {
      w.push_back(random.vector(static_cast<long>(before(l)) * widths[l], -0.5, 0.5));
      b.push_back(random.vector(widths[l]));
      idt.push_back(scaled && skip(l) != 0 ? random.vector(widths[l], 0.1, 0.5) : Vector());
    }
    w_out = random.vector(static_cast<long>(last()) * out);
    b_out = random.vector(out);
  }
  Blocks inputs() const { return {x}; }
  Blocks weights() const {  // w, b, idt (or an empty one) of every layer
    Blocks all;
    for (std::size_t l = 0; l < widths.size(); ++l) all.insert(all.end(), {w[l], b[l], idt[l]});
    all.insert(all.end(), {w_out, b_out});
    return all;
  }
  template <class S>
  Values<S> reference(const Values<S>& v, const Values<S>& weight) const {
    std::vector<S> rows = v[0];
    for (std::size_t l = 0; l < widths.size(); ++l) {
      const std::size_t n = at(widths[l]), k = at(before(l));
      const std::vector<S>&wl = weight[3 * l], &bl = weight[3 * l + 1], &factors = weight[3 * l + 2];
      std::vector<S> y = product(rows, wl, m, before(l), widths[l]);
      for (std::size_t i = 0; i < y.size(); ++i) {
        y[i] = phi(kind, 3.0, y[i] + bl[i % n]);
        if (!factors.empty()) y[i] *= factors[i % n];
        if (skip(l) != 0) y[i] += rows[i / n * k + i % n % k];
      }
      rows = y;
    }
    Values<S> y{product(rows, weight[3 * widths.size()], m, last(), out)};
    for (std::size_t i = 0; i < y[0].size(); ++i) y[0][i] += weight.back()[i % at(out)];
    return y;
  }
  template <class T>
  struct Arrays {
    explicit Arrays(const Fitting& op) {
      for (std::size_t l = 0; l < op.widths.size(); ++l) {
        const int k = op.before(l), n = op.widths[l], kp = padded<T>(k), np = padded<T>(n);
        panels.push_back(std::make_unique<Panels<T>>(op.w[l], k, n, kp, np));
        panels.push_back(std::make_unique<Panels<T>>(transpose(op.w[l], k, n), n, k, np, kp));
        vectors.push_back(std::make_unique<Rows<T>>(op.b[l], 1, n, np, 0));
        dpa2::FittingLayer<T> layer;
        layer.in = k;
        layer.out = n;
        layer.w = panels[2 * l]->packed;
        layer.wt = panels[2 * l + 1]->packed;
        layer.b = *vectors.back();
        layer.skip = op.skip(l);
        if (!op.idt[l].empty()) {
          vectors.push_back(std::make_unique<Rows<T>>(op.idt[l], 1, n, np, 0));
          layer.idt = *vectors.back();
        }
        layers.push_back(layer);
      }
      p.nlayers = static_cast<int>(layers.size());
      p.layers = layers.data();
      p.in = padded<T>(op.in);
      p.width = op.out;
      p.act = activation<T>(op.kind);
      const int k = op.last(), n = op.out, kp = padded<T>(k), np = padded<T>(n);
      if constexpr (!std::is_same_v<T, Sum<T>>) {
        p.sum_w = *sums.emplace_back(std::make_unique<Guarded<Sum<T>>>(static_cast<long>(kp) * (n == 1 ? 1 : np), Sum<T>(0)));
        p.sum_b = *sums.emplace_back(std::make_unique<Guarded<Sum<T>>>(n == 1 ? 1 : np, Sum<T>(0)));
        sums[0]->set_rows(op.w_out, k, n, n == 1 ? 1 : np, 0);
        sums[1]->set_rows(op.b_out, 1, n, n == 1 ? 1 : np, 0);
      }
      if (n == 1) {
        vectors.push_back(std::make_unique<Rows<T>>(op.w_out, 1, k, kp, 0));
        p.w_out = *vectors.back();
        p.b_out = static_cast<T>(op.b_out[0]);
        return;
      }
      p.stride = np;
      panels.push_back(std::make_unique<Panels<T>>(op.w_out, k, n, kp, np));
      p.out = panels.back()->packed;
      panels.push_back(std::make_unique<Panels<T>>(transpose(op.w_out, k, n), n, k, np, kp));
      p.out_t = panels.back()->packed;
      vectors.push_back(std::make_unique<Rows<T>>(op.b_out, 1, n, np, 0));
      p.out_b = *vectors.back();
    }
    std::vector<std::unique_ptr<Panels<T>>> panels;
    std::vector<std::unique_ptr<Rows<T>>> vectors;
    std::vector<std::unique_ptr<Guarded<Sum<T>>>> sums;
    std::vector<dpa2::FittingLayer<T>> layers;
    dpa2::FittingParams<T> p;
  };
  /// Room for the gradients of the weights, R plain numbers.
  template <class R>
  struct Gradient {
    explicit Gradient(const Fitting& source) : op(source) {
      const auto own = [&](long rows, int width) -> R* {
        arrays.push_back(std::make_unique<Guarded<R>>(rows * padded<R>(width), static_cast<R>(start_value)));
        return *arrays.back();
      };
      for (std::size_t l = 0; l < op.widths.size(); ++l) {
        g.w[l] = own(op.before(l), op.widths[l]);
        g.b[l] = own(1, op.widths[l]);
        g.idt[l] = own(op.idt[l].empty() ? 0 : 1, op.widths[l]);
      }
      const bool padded_rows = op.widths.empty();  // the width of the input is known with its padding alone
      g.out = op.out == 1 ? own(1, op.last()) : own(padded_rows ? padded<R>(op.last()) : op.last(), op.out);
      g.out_b = op.out == 1 ? (arrays.push_back(std::make_unique<Guarded<R>>(1, static_cast<R>(start_value))), arrays.back()->data())
                            : own(1, op.out);
    }
    /// In the order of Fitting::weights, less what they started from.
    Blocks blocks() const {
      Blocks f;
      const auto add = [&](long rows, int width) { f.push_back(arrays[f.size()]->rows(rows, width, padded<R>(width), start_value)); };
      for (std::size_t l = 0; l < op.widths.size(); ++l) {
        add(op.before(l), op.widths[l]);
        add(1, op.widths[l]);
        add(op.idt[l].empty() ? 0 : 1, op.widths[l]);
      }
      if (op.out == 1)
        add(1, op.last());
      else
        add(op.last(), op.out);
      f.push_back(arrays.back()->values(op.out, start_value));
      return f;
    }
    const Fitting& op;
    std::vector<std::unique_ptr<Guarded<R>>> arrays;
    dpa2::FittingGradient<R> g;
  };
  template <class T>
  BlocksOf<T> forward(const Kernels<T>& k, const BlocksOf<T>& v) const {
    Arrays<Real<T>> a(*this);
    dpa2::Arena arena;
    Rows<T> rows(v[0], m, in, a.p.in, 0);
    const long size = static_cast<long>(m) * a.p.stride;
    Guarded<Sum<T>> y(size, filler<Sum<T>>(NAN), 1), same(size, filler<Sum<T>>(NAN), 1);
    Guarded<T> dx(static_cast<long>(m) * a.p.in);
    Rows<T> dy(Vector(at(m * out), 1.0), m, out, a.p.stride, 0);
    k.fitting(a.p, m, y, nullptr, nullptr, nullptr, rows, arena);
    k.fitting(a.p, m, same, dx, nullptr, dy, rows, arena);
    for (int i = 0; i < m * a.p.stride; ++i) CHECK(y(i) == same(i));
    return {y.rows(m, out, a.p.stride)};
  }
  template <class T>
  BlocksOf<T> backward(const Kernels<T>& k, const BlocksOf<T>& v, const BlocksOf<T>& seeds, Blocks* dw = nullptr) const {
    using R = Real<T>;
    Arrays<R> a(*this);
    dpa2::Arena arena;
    Rows<T> rows(v[0], m, in, a.p.in, 0), dy(seeds[0], m, out, a.p.stride, 0);
    Guarded<Sum<T>> y(static_cast<long>(m) * a.p.stride, filler<Sum<T>>(NAN), 1);
    Guarded<T> dx(static_cast<long>(m) * a.p.in);
    k.fitting(a.p, m, y, dx, nullptr, dy, rows, arena);
    const std::vector<Wide<T>> g = dx.rows(m, in, a.p.in);
    if (dw != nullptr) gradients(k, a.p, rows, dy, dx, *dw);
    if (out > 1) return {g};
    Guarded<T> ones(static_cast<long>(m) * a.p.in);
    k.fitting(a.p, m, y, ones, nullptr, nullptr, rows, arena);  // without weights: each row's own number
    const std::vector<Wide<T>> own = ones.rows(m, in, a.p.in);
    for (std::size_t i = 0; i < own.size(); ++i) {
      const Wide<T> weighted = own[i] * seeds[0][i / at(in)], error = weighted - g[i];
      const double tolerance = sizeof(R) == 4 ? 1e-5 : 1e-13;
      CHECK(std::abs(static_cast<double>(error)) <= tolerance * (1.0 + std::abs(static_cast<double>(weighted))));
      if constexpr (is_dual<T>) CHECK(std::abs(error.d) <= 10 * tolerance * (1.0 + std::abs(weighted.d)));
    }
    return {g};
  }
  /// Those of the weights, in one call with that of the input dx, and without it.
  template <class T>
  void gradients(const Kernels<T>& k, const dpa2::FittingParams<Real<T>>& p, Guarded<T>& rows, Guarded<T>& dy, Guarded<T>& dx,
                 Blocks& dw) const {
    using R = Real<T>;
    dpa2::Arena arena;
    Gradient<R> gradient(*this), alone(*this);
    Guarded<Sum<T>> y(static_cast<long>(m) * p.stride, filler<Sum<T>>(NAN), 1);
    Guarded<T> same(static_cast<long>(m) * p.in);
    k.fitting(p, m, y, same, &gradient.g, dy, rows, arena);
    for (long i = 0; i < static_cast<long>(m) * p.in; ++i) CHECK(same(i) == dx(i));
    dw = gradient.blocks();
    dpa2::FittingGradient<R> some = alone.g;
    some.w[1] = some.b[0] = some.idt[1] = some.out_b = nullptr;
    k.fitting(p, m, y, nullptr, &some, dy, rows, arena);
    const Blocks found = alone.blocks();
    for (std::size_t i = 0; i < found.size(); ++i) {
      const bool left_out = i + 1 == found.size() || (i + 2 < found.size() && (i == 1 || i == 3 || i == 5));
      CHECK(found[i] == (left_out ? Vector(found[i].size(), 0.0) : dw[i]));
    }
    if (out > 1) return;
    // Without seeds, as with ones.
    Gradient<R> expected(*this), ones(*this);
    Guarded<T> seeds(m, T(1));
    k.fitting(p, m, y, nullptr, &expected.g, seeds, rows, arena);
    k.fitting(p, m, y, nullptr, &ones.g, nullptr, rows, arena);
    close(expected.blocks(), ones.blocks(), sizeof(R) == 4 ? 1e-5 : 1e-13, "gradients without seeds");
  }
};

}  // namespace operation
