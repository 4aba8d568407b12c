// The environment matrix and the embedding networks, as the tests call them.
#pragma once

#include "network.hpp"

namespace operation {

using dpa2::Kernels;

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
      const S r = sqrt(rr), q = r + protection;
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
    Arrays(const EnvMat& op, const BlocksOf<T>& x, int m)
        : d(x[0], 3, op.n, m, 0),
          r(m, T(1)),
          mean(op.mean),
          inv_std(4L),
          cut{static_cast<Real<T>>(op.rs), static_cast<Real<T>>(1.0 / (op.rc - op.rs)), static_cast<Real<T>>(op.protection)} {
      for (int e = 0; e < op.n; ++e) {
        Wide<T> rr = 0;
        for (int k = 0; k < 3; ++k) rr += x[0][at(static_cast<long>(k) * op.n + e)] * x[0][at(static_cast<long>(k) * op.n + e)];
        r(e) = number<T>(dpa2::math::sqrt_of(rr));
      }
      for (int k = 0; k < 4; ++k) inv_std(k) = static_cast<Real<T>>(1.0 / op.std[at(k)]);
    }
    Lanes<T> d;
    Guarded<T> r;
    Guarded<Real<T>> mean, inv_std;
    dpa2::math::Cutoff<Real<T>> cut;
  };
  template <class T>
  BlocksOf<T> forward(const Kernels<T>& k, const BlocksOf<T>& x) const {
    const int m = padded<T>(n);
    Arrays<T> a(*this, x, m);
    Guarded<T> R(4L * m), sw(m);
    k.env_mat(n, m, R, sw, a.d, a.r, a.cut, a.mean, a.inv_std);
    for (int e = n; e < m; ++e)
      for (int c = 0; c < 4; ++c) CHECK(equal(R(static_cast<long>(c) * m + e), T(0)) && equal(sw(e), T(0)));
    return {R.rows(4, n, m), sw.values(n)};
  }
  template <class T>
  BlocksOf<T> backward(const Kernels<T>& k, const BlocksOf<T>& x, const BlocksOf<T>& dy) const {
    const int m = padded<T>(n);
    Arrays<T> a(*this, x, m);
    Lanes<T> dR(dy[0], 4, n, m, garbage), dsw(dy[1], 1, n, m, garbage);
    Guarded<T> gamma(3L * m, static_cast<T>(start_value));
    k.env_mat_backward(m, gamma, dR, dsw, a.d, a.r, a.cut, a.inv_std);
    return {gamma.rows(3, n, m, start_value)};
  }
};

struct EmbeddingNet {
  Net net;
  std::vector<int> combination;
  Vector s;

  int n() const { return static_cast<int>(s.size()); }
  Blocks inputs() const { return {s}; }
  Blocks weights() const { return net.folded(); }
  template <class S>
  Values<S> reference(const Values<S>& x, const Values<S>& w) const {
    Values<S> y(1);
    y[0].resize(at(static_cast<long>(net.out()) * n()));
    for (int e = 0; e < n(); ++e) {
      const std::vector<S> g = net(x[0][at(e)], combination[at(e)], w);
      for (int c = 0; c < net.out(); ++c) y[0][at(static_cast<long>(c) * n() + e)] = g[at(c)];
    }
    return y;
  }
  template <class T>
  BlocksOf<T> forward(const Kernels<T>& k, const BlocksOf<T>& x) const {
    const int m = padded<T>(n());
    const PreparedNet<Real<T>> p(net);
    dpa2::Arena arena;
    dpa2::EmbeddingTape<T> tape;
    Lanes<T> in(x[0], 1, n(), m, garbage);
    Combinations<T> index(combination, m);
    k.embedding_layout(p.net, m, false, arena, tape);
    k.embedding(p.net, m, tape, false, in, index);
    const T* y = tape.y[p.net.nlayers - 1];
    std::vector<Wide<T>> out;
    for (int c = 0; c < net.out(); ++c)
      for (int e = 0; e < n(); ++e) out.push_back(number<Wide<T>>(y[static_cast<long>(c) * m + e]));
    return {out};
  }
  template <class T>
  BlocksOf<T> backward(const Kernels<T>& k, const BlocksOf<T>& x, const BlocksOf<T>& dy, Blocks* dw = nullptr) const {
    using R = Real<T>;
    const int m = padded<T>(n());
    const PreparedNet<R> p(net);
    dpa2::Arena arena;
    dpa2::EmbeddingTape<T> tape;
    Lanes<T> in(x[0], 1, n(), m, garbage), g(dy[0], net.out(), n(), m, garbage);
    Combinations<T> index(combination, m);
    Guarded<T> ds(m);
    k.embedding_layout(p.net, m, true, arena, tape);
    k.embedding(p.net, m, tape, true, in, index);
    k.embedding_backward(p.net, m, ds, nullptr, g, tape, in, index, arena);
    if (dw != nullptr) {
      Lanes<T> seeds(dy[0], net.out(), n(), m, 0);
      NetGradient<R> gradient(net), alone(net);
      Guarded<T> same(m);
      k.embedding_backward(p.net, m, same, &gradient.g, seeds, tape, in, index, arena);
      for (int e = 0; e < n(); ++e) CHECK(same(e) == ds(e));
      *dw = gradient.blocks();
      // Without that of s, and without those of other weights.
      dpa2::EmbeddingGradient<R> some = alone.g;
      some.type_term = some.b[1] = some.w[2] = some.idt[0] = nullptr;
      k.embedding_backward(p.net, m, nullptr, &some, seeds, tape, in, index, arena);
      const Blocks found = alone.blocks();
      for (std::size_t b = 0; b < found.size(); ++b) {
        const bool left_out = b == 1 || b == 7 || b == 9 || b == 5;
        CHECK(found[b] == (left_out ? Vector(found[b].size(), 0.0) : (*dw)[b]));
      }
    }
    return {ds.values(n())};
  }
};

}  // namespace operation
