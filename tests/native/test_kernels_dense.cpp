// The operations on rows of channels: activations, dense products, LayerNorm, residual updates, g2 embedding, fitting.
#include <stdexcept>

#include "operation.hpp"

namespace {

using namespace operation;
using dpa2::Activation;
using dpa2::Kernels;

const Activation every_activation[] = {Activation::linear,   Activation::tanh, Activation::relu, Activation::relu6, Activation::sigmoid,
                                       Activation::softplus, Activation::gelu, Activation::silu, Activation::silut};

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
  Blocks forward(const Kernels<T>& k, const Blocks& x) const {
    const int n = static_cast<int>(x[0].size()), m = padded<T>(n);
    Rows<T> in(x[0], 1, n, m);
    Guarded<T> y(m), same(m), dphi(m), in_place(m);
    k.activate(activation<T>(kind, threshold), m, y, in);
    k.activate_grad(activation<T>(kind, threshold), m, same, dphi, in);
    std::copy_n(static_cast<T*>(in), m, static_cast<T*>(in_place));
    k.activate(activation<T>(kind, threshold), m, in_place, in_place);
    for (int i = 0; i < n; ++i) CHECK(y(i) == same(i) && y(i) == in_place(i));
    return {y.values(n)};
  }
  template <class T>
  Blocks backward(const Kernels<T>& k, const Blocks& x, const Blocks& dy) const {
    const int n = static_cast<int>(x[0].size()), m = padded<T>(n);
    Rows<T> in(x[0], 1, n, m), g(dy[0], 1, n, m);
    Guarded<T> y(m), dphi(m), dz(m);
    k.activate_grad(activation<T>(kind, threshold), m, y, dphi, in);
    k.activate_backward(m, dz, g, dphi);
    k.activate_backward(m, g, g, dphi);
    for (int i = 0; i < n; ++i) CHECK(dz(i) == g(i));
    return {dz.values(n)};
  }
};

void test_activation(const std::string& level) {
  Random random(1);
  for (const Activation kind : every_activation)
    for (const double threshold : {3.0, 0.5}) {
      const std::string name = "activation " + std::to_string(static_cast<int>(kind));
      for (const double range : {0.1, 4.0, 30.0}) {
        // Away from the kinks, where no derivative exists.
        Vector z = random.vector(37, -range, range);
        for (double& v : z)
          if (std::abs(v) < 0.01 || std::abs(v - 6) < 0.01 || std::abs(v - 20) < 0.01 || std::abs(v - threshold) < 0.01) v = 0.0625;
        check_operation(Activate{kind, threshold, z}, name, level);
      }
      check_operation(Activate{kind, threshold, {}}, name, level);
    }
  // The conventions at the kinks, and arguments far away.
  const Kernels<double>& k = dpa2::kernels<double>(level);
  const auto at_point = [&](Activation kind, double x, double threshold = 3.0) {
    Guarded<double> z(8, x), y(8), d(8);
    k.activate_grad(activation<double>(kind, threshold), 8, y, d, z);
    return std::pair<double, double>(y(3), d(3));
  };
  using Point = std::pair<double, double>;
  CHECK(at_point(Activation::relu, 0.0) == Point(0, 0) && at_point(Activation::relu6, 0.0) == Point(0, 0));
  CHECK(at_point(Activation::relu6, 6.0) == Point(6, 0) && at_point(Activation::relu6, 1e300) == Point(6, 0));
  CHECK(at_point(Activation::softplus, 20.5) == Point(20.5, 1) && at_point(Activation::softplus, 20.0).first != 20.0);
  CHECK_NEAR(at_point(Activation::silut, 2.0, 2.0).first, phi(Activation::silu, 0.0, 2.0), 1e-15);
  const double inf = INFINITY;
  CHECK(at_point(Activation::tanh, inf) == Point(1, 0) && at_point(Activation::tanh, -inf) == Point(-1, 0));
  CHECK(at_point(Activation::sigmoid, inf) == Point(1, 0) && at_point(Activation::sigmoid, -inf).first < 1e-300);
  CHECK(at_point(Activation::relu, inf) == Point(inf, 1) && at_point(Activation::relu, -inf) == Point(0, 0));
  CHECK(at_point(Activation::softplus, inf) == Point(inf, 1) && at_point(Activation::softplus, -inf).first < 1e-300);
  CHECK(at_point(Activation::silut, 1e300).second == 0.0 && at_point(Activation::gelu, 1e100) == Point(1e100, 1));
  for (const Activation kind : every_activation) CHECK(std::isnan(at_point(kind, NAN).first));
}

template <class T>
void test_linear(const std::string& level) {
  const Kernels<T>& k = dpa2::kernels<T>(level);
  const int panel = padded<T>(1);
  Random random(2);
  for (const int m : {0, 1, 2, 5, 7, 12, 13, 25})
    for (const int n : {panel, 2 * panel, 5 * panel})
      for (const int depth : {0, 1, 3, 17, 160, 161, 333})
        for (int variant = 0; variant < 8; ++variant) {
          const bool rows = (variant & 1) != 0, packed = (variant & 2) != 0, accumulate = (variant & 4) != 0;
          const bool biased = random.below(2) == 1;
          const Vector a = random.vector(static_cast<long>(m) * depth), b = random.vector(static_cast<long>(depth) * n);
          const Vector bias = random.vector(n);
          const long gap = 3, ars = rows ? depth + gap : 1, acs = rows ? 1 : m + gap, ldc = n + panel, lda = rows ? depth + gap : m + gap;
          Rows<T> A(rows ? a : transpose(a, m, depth), rows ? m : depth, rows ? depth : m, lda, NAN);
          Panels<T> P(b, depth, n, depth, n);
          Rows<T> B(b, depth, n, n + panel, NAN);
          Guarded<T> shift(bias), C(m * ldc, static_cast<T>(start_value));
          k.linear(m, n, depth, C, ldc, A, ars, acs, packed ? static_cast<T*>(P.array) : static_cast<T*>(B), packed ? panel : n + panel,
                   packed ? static_cast<long>(depth) * panel : panel, biased ? static_cast<T*>(shift) : nullptr, accumulate);
          bool good = true, untouched = true;
          for (int r = 0; r < m; ++r) {
            for (int c = 0; c < n; ++c) {
              double sum = accumulate ? start_value : biased ? bias[at(c)] : 0.0, size = std::abs(sum);
              for (int p = 0; p < depth; ++p) {
                const double term = a[at(static_cast<long>(r) * depth + p)] * b[at(static_cast<long>(p) * n + c)];
                sum += term;
                size += std::abs(term);
              }
              // A sum of n terms is off by at most n roundings of its absolute terms.
              good = good && std::abs(static_cast<double>(C(r * ldc + c)) - sum) <= (depth + 2) * size * std::numeric_limits<T>::epsilon();
            }
            for (int c = n; c < ldc; ++c) untouched = untouched && C(r * ldc + c) == static_cast<T>(start_value);
          }
          const std::string name = "linear " + std::to_string(m) + " " + std::to_string(n) + " " + std::to_string(depth) + " variant " +
                                   std::to_string(variant) + " at " + level;
          CHECK_CASE(good, name);
          CHECK_CASE(untouched, name);
        }
}

/// One dense layer as an operation: the backward is the product with the transposed matrix.
struct Linear {
  int m, in, out;
  Vector x, w, b;

  Blocks inputs() const { return {x}; }
  template <class S>
  Values<S> reference(const Values<S>& v) const {
    Values<S> y{product(v[0], w, m, in, out)};
    for (int r = 0; r < m; ++r)
      for (int c = 0; c < out; ++c) y[0][at(static_cast<long>(r) * out + c)] += b[at(c)];
    return y;
  }
  template <class T>
  Blocks run(const Kernels<T>& k, const Vector& rows, const Vector& matrix, int depth, int n, const Vector* bias) const {
    const int kp = padded<T>(depth), np = padded<T>(n), panel = padded<T>(1);
    Rows<T> A(rows, m, depth, kp);
    Panels<T> B(matrix, depth, n, kp, np);
    Guarded<T> C(static_cast<long>(m) * np), shift(np, T(0));
    if (bias != nullptr) shift.set_rows(*bias, 1, n, np, 0);
    k.linear(m, np, kp, C, np, A, kp, 1, B.array, panel, static_cast<long>(kp) * panel, bias != nullptr ? static_cast<T*>(shift) : nullptr,
             false);
    for (int r = 0; r < m; ++r)
      for (int c = n; c < np; ++c) CHECK(C(static_cast<long>(r) * np + c) == T(0));
    return {C.rows(m, n, np)};
  }
  template <class T>
  Blocks forward(const Kernels<T>& k, const Blocks& v) const {
    return run(k, v[0], w, in, out, &b);
  }
  template <class T>
  Blocks backward(const Kernels<T>& k, const Blocks&, const Blocks& dy) const {
    return run(k, dy[0], transpose(w, in, out), out, in, nullptr);
  }
};

struct LayerNorm {
  int n, channels;
  double eps;
  Vector z, gamma, beta;

  Blocks inputs() const { return {z}; }
  template <class S>
  Values<S> reference(const Values<S>& x) const {  // the mean is removed in front of the operation
    Values<S> y{std::vector<S>(x[0].size())};
    for (int r = 0; r < n; ++r) {
      const long row = static_cast<long>(r) * channels;
      S var = 0;
      for (int c = 0; c < channels; ++c) var += x[0][at(row + c)] * x[0][at(row + c)] / static_cast<double>(channels);
      for (int c = 0; c < channels; ++c) y[0][at(row + c)] = x[0][at(row + c)] / std::sqrt(var + eps) * gamma[at(c)] + beta[at(c)];
    }
    return y;
  }
  template <class T>
  Blocks forward(const Kernels<T>& k, const Blocks& x) const {
    const int nc = padded<T>(channels);
    Rows<T> in(x[0], n, channels, nc, 0), in_place(x[0], n, channels, nc, 0), g(gamma, 1, channels, nc, 0), b(beta, 1, channels, nc, 0);
    Guarded<T> out(static_cast<long>(n) * nc), zh(static_cast<long>(n) * nc), inv(n, NAN, 1), again(static_cast<long>(n) * nc);
    k.layer_norm(n, nc, channels, static_cast<T>(eps), out, zh, inv, in, g, b);
    k.layer_norm(n, nc, channels, static_cast<T>(eps), again, in_place, inv, in_place, g, b);
    for (long i = 0; i < static_cast<long>(n) * nc; ++i) CHECK(out(i) == again(i) && zh(i) == in_place(i));
    return {out.rows(n, channels, nc)};
  }
  template <class T>
  Blocks backward(const Kernels<T>& k, const Blocks& x, const Blocks& dy) const {
    const int nc = padded<T>(channels);
    Rows<T> in(x[0], n, channels, nc, 0), g(gamma, 1, channels, nc, 0), b(beta, 1, channels, nc, 0), dout(dy[0], n, channels, nc);
    Guarded<T> out(static_cast<long>(n) * nc), dz(static_cast<long>(n) * nc), inv(n, NAN, 1);
    k.layer_norm(n, nc, channels, static_cast<T>(eps), out, in, inv, in, g, b);
    k.layer_norm_backward(n, nc, channels, dz, dout, in, inv, g);
    k.layer_norm_backward(n, nc, channels, dout, dout, in, inv, g);
    for (long i = 0; i < static_cast<long>(n) * nc; ++i) CHECK(dz(i) == dout(i));
    return {dz.rows(n, channels, nc)};
  }
};

void test_layer_norm(const std::string& level) {
  Random random(3);
  for (const int n : {0, 1, 2, 5})
    for (const int channels : {1, 5, 8, 17}) {
      LayerNorm op{n, channels, 1e-3, random.vector(static_cast<long>(n) * channels), random.vector(channels), random.vector(channels)};
      // One channel of size s is normalised to nearly 1: its gradient cancels to eps/s^2, which float32 does not resolve.
      Bounds bounds;
      bounds.single = channels == 1 ? 1e-4 : 1e-5;
      check_operation(op, "layer_norm", level, bounds);
      // With a mean of zero it is the norm of section 8.6.
      for (int r = 0; r < n; ++r) {
        double mean = 0;
        for (int c = 0; c < channels; ++c) mean += op.z[at(static_cast<long>(r) * channels + c)] / channels;
        for (int c = 0; c < channels; ++c) op.z[at(static_cast<long>(r) * channels + c)] -= mean;
      }
      const Vector out = op.forward(dpa2::kernels<double>(level), op.inputs())[0];
      for (int r = 0; r < n; ++r) {
        const double* z = op.z.data() + static_cast<std::ptrdiff_t>(r) * channels;
        double mean = 0, var = 0;
        for (int c = 0; c < channels; ++c) mean += z[c] / channels;
        for (int c = 0; c < channels; ++c) var += (z[c] - mean) * (z[c] - mean) / channels;
        for (int c = 0; c < channels; ++c)
          CHECK_NEAR(out[at(static_cast<long>(r) * channels + c)],
                     (z[c] - mean) / std::sqrt(var + op.eps) * op.gamma[at(c)] + op.beta[at(c)], 1e-13);
      }
    }
  const LayerNorm flat{2, 5, 1e-5, Vector(10, 0.0), random.vector(5), random.vector(5)};
  Bounds small_step;
  small_step.step = 1e-5;  // the norm bends on the scale of sqrt(eps)
  check_operation(flat, "layer_norm of zeros", level, small_step);
}

struct ResidualUpdate {
  int n, nc_real, nterms;
  double a;
  Vector u;
  Blocks U, r;
  int without = -1;  // the term whose gradient nobody wants

  Blocks inputs() const {
    Blocks x{u};
    for (int t = 0; t < nterms; ++t) x.push_back(U[at(t)]);
    return x;
  }
  template <class S>
  Values<S> reference(const Values<S>& x) const {
    Values<S> y{x[0]};
    for (std::size_t i = 0; i < y[0].size(); ++i) {
      y[0][i] *= a;
      for (int t = 0; t < nterms; ++t) y[0][i] += r[at(t)][i % at(nc_real)] * x[at(t) + 1][i];
    }
    return y;
  }
  template <class T>
  struct Arrays {
    std::vector<std::unique_ptr<Guarded<T>>> owned;
    dpa2::Residual<T> residual;
    T* terms[dpa2::max_residual_terms] = {};
  };
  template <class T>
  Arrays<T> arrays(const Blocks* x) const {
    Arrays<T> s;
    const int nc = padded<T>(nc_real);
    s.residual.a = static_cast<T>(a);
    s.residual.nterms = nterms;
    for (int t = 0; t < nterms; ++t) {
      s.owned.push_back(std::make_unique<Rows<T>>(r[at(t)], 1, nc_real, nc));
      s.residual.r[t] = *s.owned.back();
      if (x != nullptr)
        s.owned.push_back(std::make_unique<Rows<T>>((*x)[at(t) + 1], n, nc_real, nc));
      else
        s.owned.push_back(std::make_unique<Guarded<T>>(static_cast<long>(n) * nc));
      s.terms[t] = *s.owned.back();
    }
    return s;
  }
  template <class T>
  Blocks forward(const Kernels<T>& k, const Blocks& x) const {
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
  Blocks backward(const Kernels<T>& k, const Blocks& x, const Blocks& dy) const {
    const int nc = padded<T>(nc_real);
    Arrays<T> s = arrays<T>(nullptr);
    Rows<T> dout(dy[0], n, nc_real, nc);
    Guarded<T> du(static_cast<long>(n) * nc, static_cast<T>(start_value));
    T* const kept = without >= 0 ? s.terms[without] : nullptr;
    if (without >= 0) s.terms[without] = nullptr;
    k.residual_backward(n, nc, s.residual, du, s.terms, dout);
    if (without >= 0) {  // computed by hand, so that the comparisons still hold
      for (long i = 0; i < static_cast<long>(n) * nc; ++i) {
        CHECK(std::isnan(kept[i]));
        kept[i] = dout(i) * s.residual.r[without][i % nc];
      }
    }
    Blocks dx{du.rows(n, nc_real, nc, start_value)};
    for (int t = 0; t < nterms; ++t) dx.push_back(s.owned[at(2 * t + 1)]->rows(n, nc_real, nc));
    CHECK(dx.size() == x.size());
    return dx;
  }
};

struct G2Embed {
  Activation kind;
  int n, n2;
  Vector x, w, b;

  Blocks inputs() const { return {x}; }
  template <class S>
  Values<S> reference(const Values<S>& v) const {
    Values<S> y(1);
    for (int e = 0; e < n; ++e)
      for (int c = 0; c < n2; ++c) y[0].push_back(phi(kind, 3.0, v[0][at(e)] * w[at(c)] + b[at(c)]));
    return y;
  }
  template <class T>
  Blocks forward(const Kernels<T>& k, const Blocks& v) const {
    const int nc = padded<T>(n2);
    Guarded<T> in(v[0], 1), g2(static_cast<long>(n) * nc);
    Rows<T> W(w, 1, n2, nc, 0), B(b, 1, n2, nc, 0);
    k.g2_embed(n, nc, g2, in, W, B, activation<T>(kind));
    return {g2.rows(n, n2, nc)};
  }
  template <class T>
  Blocks backward(const Kernels<T>& k, const Blocks& v, const Blocks& dy) const {
    const int nc = padded<T>(n2);
    dpa2::Arena arena;
    Guarded<T> in(v[0], 1), dx(n, NAN, 1);
    Rows<T> W(w, 1, n2, nc, 0), B(b, 1, n2, nc, 0), g(dy[0], n, n2, nc);
    k.g2_embed_backward(n, nc, dx, g, in, W, B, activation<T>(kind), arena);
    return {dx.values()};
  }
};

}  // namespace

int main() {
  for_levels([](const std::string& level) {
    test_activation(level);
    test_linear<double>(level);
    test_linear<float>(level);
    test_layer_norm(level);
    Random random(4);
    for (const int m : {0, 1, 2, 7})
      for (const auto& [in, out] : {std::pair(3, 5), std::pair(17, 1), std::pair(8, 16)})
        check_operation(Linear{m, in, out, random.vector(m * in), random.vector(in * out), random.vector(out)}, "linear", level);
    for (const int n : {0, 1, 2, 5})
      for (const int nc : {3, 16, 17})
        for (int terms = 0; terms <= dpa2::max_residual_terms; ++terms) {
          ResidualUpdate op{n, nc, terms, random(0.3, 1.0), random.vector(n * nc), {}, {}};
          for (int t = 0; t < terms; ++t) {
            op.U.push_back(random.vector(n * nc));
            op.r.push_back(random.vector(nc));
          }
          if (terms > 1) op.without = terms - 2;
          check_operation(op, "residual_update", level);
        }
    for (const Activation kind : {Activation::tanh, Activation::sigmoid, Activation::silut})
      for (const int n : {0, 1, 2, 11})
        for (const int n2 : {1, 5, 16})
          check_operation(G2Embed{kind, n, n2, random.vector(n, 0.0, 3.0), random.vector(n2), random.vector(n2)}, "g2_embed", level);
  });

  for (const char* name : {"v9", ""}) {
    bool refused = false;
    try {
      dpa2::kernels<double>(std::string(name));
    } catch (const std::runtime_error& error) {
      refused = std::string(error.what()).find("no such instruction-set level") != std::string::npos;
    }
    CHECK(refused);
  }
  return check::finish();
}
