// The operations on rows of channels, as the tests call them: activations, dense products, LayerNorm, residual updates, g2 embedding.
#pragma once

#include <memory>

#include "operation.hpp"

namespace operation {

using dpa2::Activation;
using dpa2::Kernels;

struct Activate {
  Activation kind;
  double threshold;
  Vector z;

  Blocks inputs() const { return {z}; }
  template <class S>
  Values<S> reference(const Values<S>& x) const {
    Values<S> y(1);
    for (const S& v : x[0]) y[0].push_back(phi(kind, threshold, v));
    return y;
  }
  template <class T>
  BlocksOf<T> forward(const Kernels<T>& k, const BlocksOf<T>& x) const {
    const int n = static_cast<int>(x[0].size()), m = padded<T>(n);
    const dpa2::ActivationSpec<Real<T>> spec = activation<Real<T>>(kind, threshold);
    Rows<T> in(x[0], 1, n, m);
    Guarded<T> y(m), same(m), dphi(m), in_place(m);
    k.activate(spec, m, y, in);
    k.activate_grad(spec, m, same, dphi, in);
    std::copy_n(static_cast<T*>(in), m, static_cast<T*>(in_place));
    k.activate(spec, m, in_place, in_place);
    for (int i = 0; i < n; ++i) CHECK(y(i) == same(i) && y(i) == in_place(i));
    return {y.values(n)};
  }
  template <class T>
  BlocksOf<T> backward(const Kernels<T>& k, const BlocksOf<T>& x, const BlocksOf<T>& dy) const {
    const int n = static_cast<int>(x[0].size()), m = padded<T>(n);
    Rows<T> in(x[0], 1, n, m), g(dy[0], 1, n, m);
    Guarded<T> y(m), dphi(m), dz(m);
    k.activate_grad(activation<Real<T>>(kind, threshold), m, y, dphi, in);
    k.activate_backward(m, dz, g, dphi);
    k.activate_backward(m, g, g, dphi);
    for (int i = 0; i < n; ++i) CHECK(dz(i) == g(i));
    return {dz.values(n)};
  }
};

/// One dense layer as an operation: the backward is the product with the transposed matrix.
struct Linear {
  int m, in, out;
  Vector x, w, b;

  Blocks inputs() const { return {x}; }
  Blocks weights() const { return {w, b}; }
  template <class S>
  Values<S> reference(const Values<S>& v, const Values<S>& weight) const {
    Values<S> y{product(v[0], weight[0], m, in, out)};
    for (int r = 0; r < m; ++r)
      for (int c = 0; c < out; ++c) y[0][at(static_cast<long>(r) * out + c)] += weight[1][at(c)];
    return y;
  }
  template <class T>
  BlocksOf<T> run(const Kernels<T>& k, const std::vector<Wide<T>>& rows, const Vector& matrix, int depth, int n, const Vector* bias) const {
    using R = Real<T>;
    const int kp = padded<T>(depth), np = padded<T>(n), panel = padded<T>(1);
    Rows<T> A(rows, m, depth, kp);
    Panels<R> B(matrix, depth, n, kp, np);
    Guarded<T> C(static_cast<long>(m) * np);
    Guarded<R> shift(np, R(0));
    if (bias != nullptr) shift.set_rows(*bias, 1, n, np, 0);
    k.linear(m, np, kp, C, np, A, kp, 1, B.array, panel, static_cast<long>(kp) * panel, bias != nullptr ? static_cast<R*>(shift) : nullptr,
             false);
    for (int r = 0; r < m; ++r)
      for (int c = n; c < np; ++c) CHECK(C(static_cast<long>(r) * np + c) == T(0));
    return {C.rows(m, n, np)};
  }
  template <class T>
  BlocksOf<T> forward(const Kernels<T>& k, const BlocksOf<T>& v) const {
    return run(k, v[0], w, in, out, &b);
  }
  template <class T>
  BlocksOf<T> backward(const Kernels<T>& k, const BlocksOf<T>& v, const BlocksOf<T>& dy, Blocks* dw = nullptr) const {
    using R = Real<T>;
    if (dw != nullptr) {
      const int kp = padded<T>(in), np = padded<T>(out), panel = padded<T>(1);
      Rows<T> A(v[0], m, in, kp), B(dy[0], m, out, np, 0);
      Guarded<R> matrix(static_cast<long>(in) * np, static_cast<R>(start_value)), bias(np, static_cast<R>(start_value));
      k.weight_gradient(in, np, m, matrix, np, A, 1, kp, B, np, panel);
      k.bias_gradient(np, m, bias, B, np);
      for (int c = out; c < np; ++c) CHECK(bias(c) == static_cast<R>(start_value));
      *dw = {matrix.rows(in, out, np, start_value), bias.values(out, start_value)};
    }
    return run(k, dy[0], transpose(w, in, out), out, in, nullptr);
  }
};

struct LayerNorm {
  int n, channels;
  double eps;
  Vector z, gain, bias;

  Blocks inputs() const { return {z}; }
  Blocks weights() const { return {gain, bias}; }
  template <class S>
  Values<S> reference(const Values<S>& x, const Values<S>& w) const {  // the mean is removed in front of the operation
    Values<S> y{std::vector<S>(x[0].size())};
    for (int r = 0; r < n; ++r) {
      const long row = static_cast<long>(r) * channels;
      S var = 0;
      for (int c = 0; c < channels; ++c) var += x[0][at(row + c)] * x[0][at(row + c)] / static_cast<double>(channels);
      for (int c = 0; c < channels; ++c) y[0][at(row + c)] = x[0][at(row + c)] / sqrt(var + eps) * w[0][at(c)] + w[1][at(c)];
    }
    return y;
  }
  template <class T>
  BlocksOf<T> forward(const Kernels<T>& k, const BlocksOf<T>& x) const {
    using R = Real<T>;
    const int nc = padded<T>(channels);
    Rows<T> in(x[0], n, channels, nc, 0), in_place(x[0], n, channels, nc, 0);
    Rows<R> g(gain, 1, channels, nc, 0), b(bias, 1, channels, nc, 0);
    Guarded<T> out(static_cast<long>(n) * nc), zh(static_cast<long>(n) * nc), inv(n, filler<T>(NAN), 1), again(static_cast<long>(n) * nc);
    k.layer_norm(n, nc, channels, static_cast<R>(eps), out, zh, inv, in, g, b);
    k.layer_norm(n, nc, channels, static_cast<R>(eps), again, in_place, inv, in_place, g, b);
    for (long i = 0; i < static_cast<long>(n) * nc; ++i) CHECK(out(i) == again(i) && zh(i) == in_place(i));
    return {out.rows(n, channels, nc)};
  }
  template <class T>
  BlocksOf<T> backward(const Kernels<T>& k, const BlocksOf<T>& x, const BlocksOf<T>& dy, Blocks* dw = nullptr) const {
    using R = Real<T>;
    const int nc = padded<T>(channels);
    Rows<T> in(x[0], n, channels, nc, 0), dout(dy[0], n, channels, nc);
    Rows<R> g(gain, 1, channels, nc, 0), b(bias, 1, channels, nc, 0);
    Guarded<R> dgain(nc, static_cast<R>(start_value)), dbias(nc, static_cast<R>(start_value));
    Guarded<T> out(static_cast<long>(n) * nc), dz(static_cast<long>(n) * nc), inv(n, filler<T>(NAN), 1);
    k.layer_norm(n, nc, channels, static_cast<R>(eps), out, in, inv, in, g, b);
    k.layer_norm_backward(n, nc, channels, dz, nullptr, nullptr, dout, in, inv, g);
    k.layer_norm_backward(n, nc, channels, dout, dw != nullptr ? dgain.data() : nullptr, dw != nullptr ? dbias.data() : nullptr, dout, in,
                          inv, g);
    for (long i = 0; i < static_cast<long>(n) * nc; ++i) CHECK(dz(i) == dout(i));
    if (dw != nullptr) *dw = {dgain.values(channels, start_value), dbias.values(channels, start_value)};
    return {dz.rows(n, channels, nc)};
  }
};

struct ResidualUpdate {
  int n, nc_real, nterms;
  double a;
  Vector u;
  Blocks U, r;
  int without = -1;  // the term whose gradients nobody wants

  Blocks inputs() const {
    Blocks x{u};
    for (int t = 0; t < nterms; ++t) x.push_back(U[at(t)]);
    return x;
  }
  Blocks weights() const { return r; }
  template <class S>
  Values<S> reference(const Values<S>& x, const Values<S>& w) const {
    Values<S> y{x[0]};
    for (std::size_t i = 0; i < y[0].size(); ++i) {
      y[0][i] *= a;
      for (int t = 0; t < nterms; ++t) y[0][i] += w[at(t)][i % at(nc_real)] * x[at(t) + 1][i];
    }
    return y;
  }
  template <class T>
  struct Arrays {
    std::vector<std::unique_ptr<Guarded<T>>> owned;  // of the terms
    std::vector<std::unique_ptr<Guarded<Real<T>>>> r;
    dpa2::Residual<Real<T>> residual;
    T* terms[dpa2::max_residual_terms] = {};
  };
  template <class T>
  Arrays<T> arrays(const BlocksOf<T>* x) const {
    Arrays<T> s;
    const int nc = padded<T>(nc_real);
    s.residual.a = static_cast<Real<T>>(a);
    s.residual.nterms = nterms;
    for (int t = 0; t < nterms; ++t) {
      s.r.push_back(std::make_unique<Rows<Real<T>>>(r[at(t)], 1, nc_real, nc));
      s.residual.r[t] = *s.r.back();
      if (x != nullptr)
        s.owned.push_back(std::make_unique<Rows<T>>((*x)[at(t) + 1], n, nc_real, nc));
      else
        s.owned.push_back(std::make_unique<Guarded<T>>(static_cast<long>(n) * nc));
      s.terms[t] = *s.owned.back();
    }
    return s;
  }
  template <class T>
  BlocksOf<T> forward(const Kernels<T>& k, const BlocksOf<T>& x) const {
    const int nc = padded<T>(nc_real);
    const Arrays<T> s = arrays<T>(&x);
    Rows<T> in(x[0], n, nc_real, nc);
    Guarded<T> out(static_cast<long>(n) * nc);
    k.residual(n, nc, s.residual, out, in, s.terms);
    k.residual(n, nc, s.residual, in, in, s.terms);
    for (long i = 0; i < static_cast<long>(n) * nc; ++i) CHECK(out(i) == in(i));
    return {out.rows(n, nc_real, nc)};
  }
  template <class T>
  BlocksOf<T> backward(const Kernels<T>& k, const BlocksOf<T>& x, const BlocksOf<T>& dy, Blocks* dw = nullptr) const {
    using R = Real<T>;
    const int nc = padded<T>(nc_real);
    Arrays<T> s = arrays<T>(nullptr);
    const Arrays<T> given = arrays<T>(&x);
    Rows<T> dout(dy[0], n, nc_real, nc);
    Guarded<T> du(static_cast<long>(n) * nc, static_cast<T>(start_value));
    std::vector<std::unique_ptr<Guarded<R>>> gradients;
    R* dr[dpa2::max_residual_terms] = {};
    for (int t = 0; t < nterms; ++t) {
      gradients.push_back(std::make_unique<Guarded<R>>(nc, static_cast<R>(start_value)));
      if (t != without) dr[t] = *gradients.back();
    }
    T* const kept = without >= 0 ? s.terms[without] : nullptr;
    if (without >= 0) s.terms[without] = nullptr;
    k.residual_backward(n, nc, s.residual, du, s.terms, dw != nullptr ? dr : nullptr, dw != nullptr ? given.terms : nullptr, dout);
    if (without >= 0) {  // computed by hand, so that the comparisons still hold
      for (long i = 0; i < static_cast<long>(n) * nc; ++i) {
        CHECK(is_nan(kept[i]));
        kept[i] = dout(i) * s.residual.r[without][i % nc];
        (*gradients[at(without)])(i % nc) += dpa2::math::gradient_of(dout(i) * given.terms[without][i]);
      }
    }
    BlocksOf<T> dx{du.rows(n, nc_real, nc, start_value)};
    for (int t = 0; t < nterms; ++t) dx.push_back(s.owned[at(t)]->rows(n, nc_real, nc));
    CHECK(dx.size() == x.size());
    if (dw != nullptr)
      for (const auto& gradient : gradients) dw->push_back(gradient->values(nc_real, start_value));
    return dx;
  }
};

struct G2Embed {
  Activation kind;
  int n, n2;
  Vector x, w, b;

  Blocks inputs() const { return {x}; }
  Blocks weights() const { return {w, b}; }
  template <class S>
  Values<S> reference(const Values<S>& v, const Values<S>& weight) const {
    Values<S> y(1);
    for (int e = 0; e < n; ++e)
      for (int c = 0; c < n2; ++c) y[0].push_back(phi(kind, 3.0, v[0][at(e)] * weight[0][at(c)] + weight[1][at(c)]));
    return y;
  }
  template <class T>
  BlocksOf<T> forward(const Kernels<T>& k, const BlocksOf<T>& v) const {
    const int nc = padded<T>(n2);
    Guarded<T> in(v[0], 1), g2(static_cast<long>(n) * nc);
    Rows<Real<T>> W(w, 1, n2, nc, 0), B(b, 1, n2, nc, 0);
    k.g2_embed(n, nc, g2, in, W, B, activation<Real<T>>(kind));
    return {g2.rows(n, n2, nc)};
  }
  template <class T>
  BlocksOf<T> backward(const Kernels<T>& k, const BlocksOf<T>& v, const BlocksOf<T>& dy, Blocks* dw = nullptr) const {
    using R = Real<T>;
    const int nc = padded<T>(n2);
    dpa2::Arena arena;
    Guarded<T> in(v[0], 1), dx(n, filler<T>(NAN), 1);
    Rows<R> W(w, 1, n2, nc, 0), B(b, 1, n2, nc, 0);
    Rows<T> g(dy[0], n, n2, nc);
    k.g2_embed_backward(n, nc, dx, nullptr, nullptr, g, in, W, B, activation<R>(kind), arena);
    if (dw != nullptr) {
      Guarded<R> w_gradient(nc, static_cast<R>(start_value)), b_gradient(nc, static_cast<R>(start_value));
      k.g2_embed_backward(n, nc, nullptr, w_gradient, b_gradient, g, in, W, B, activation<R>(kind), arena);
      *dw = {w_gradient.values(n2, start_value), b_gradient.values(n2, start_value)};
    }
    return {dx.values()};
  }
};

}  // namespace operation
