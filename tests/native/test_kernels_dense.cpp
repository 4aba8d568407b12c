// The operations on rows of channels: activations, dense products, LayerNorm, residual updates, g2 embedding, fitting.
#include <stdexcept>

#include "kernels_dense.hpp"
#include "training.hpp"

namespace {

using namespace operation;

const Activation every_activation[] = {Activation::linear,   Activation::tanh, Activation::relu, Activation::relu6, Activation::sigmoid,
                                       Activation::softplus, Activation::gelu, Activation::silu, Activation::silut};

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
        check_training(Activate{kind, threshold, z}, name, level);
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

/// On both sides of a kink, and on it, tangents are those of the branch that gives the derivative; relu and relu6 are flat there.
template <class R>
void test_kinks(const std::string& level) {
  using D = Dual<R>;
  const Kernels<D>& k = dpa2::kernels<D>(level);
  const int n = padded<D>(1);
  struct Numbers {
    D y, dphi;
  };
  const auto at_point = [&](Activation kind, double x, double threshold = 3.0) {
    Guarded<D> z(n, D(static_cast<R>(x), R(2))), y(n), dphi(n);
    k.activate_grad(activation<R>(kind, threshold), n, y, dphi, z);
    return Numbers{y(n - 1), dphi(n - 1)};
  };
  for (const Activation kind : {Activation::relu, Activation::relu6})
    for (const double x : {-1.0, 0.0, 2.0, 6.0, 7.0}) {
      const bool slopes = x > 0 && (kind == Activation::relu || x < 6);
      const Numbers found = at_point(kind, x);
      CHECK(found.dphi == D(slopes ? R(1) : R(0), R(0)));
      CHECK(found.y.d == (slopes ? R(2) : R(0)));
    }
  CHECK(at_point(Activation::linear, 5.0).y == D(R(5), R(2)) && at_point(Activation::linear, 5.0).dphi == D(R(1), R(0)));
  CHECK(at_point(Activation::softplus, 20.5).y == D(R(20.5), R(2)) && at_point(Activation::softplus, 20.5).dphi == D(R(1), R(0)));
  // silut at its threshold: the branch above, whose second derivative is 0 there, while that below is not.
  CHECK(at_point(Activation::silut, 2.0, 2.0).dphi.d == R(0) && at_point(Activation::silut, 1.75, 2.0).dphi.d != R(0));
  // Far away everything is finite and flat.
  for (const Activation kind : every_activation)
    for (const double x : {-80.0, 80.0}) {
      const Numbers found = at_point(kind, x);
      CHECK_CASE(std::isfinite(found.y.v) && std::isfinite(found.y.d) && std::isfinite(found.dphi.v),
                 std::to_string(static_cast<int>(kind)));
      CHECK_CASE(std::abs(found.dphi.d) < R(1e-30), std::to_string(static_cast<int>(kind)));
    }
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

void test_layer_norm(const std::string& level) {
  Random random(3);
  for (const int n : {0, 1, 2, 5})
    for (const int channels : {1, 5, 8, 17}) {
      LayerNorm op{n, channels, 1e-3, random.vector(static_cast<long>(n) * channels), random.vector(channels), random.vector(channels)};
      // One channel of size s is normalised to nearly 1: its gradient cancels to eps/s^2, which float32 does not resolve.
      Bounds bounds;
      bounds.single = channels == 1 ? 1e-4 : 1e-5;
      bounds.single_tangent = channels == 1 ? 1e-4 : 1e-5;
      check_operation(op, "layer_norm", level, bounds);
      check_training(op, "layer_norm", level, bounds);
      // With a mean of zero it is the whole LayerNorm (theory 8.6, S3).
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
                     (z[c] - mean) / std::sqrt(var + op.eps) * op.gain[at(c)] + op.bias[at(c)], 1e-13);
      }
    }
  const LayerNorm flat{2, 5, 1e-5, Vector(10, 0.0), random.vector(5), random.vector(5)};
  Bounds small_step;
  small_step.step = 1e-5;  // the norm bends on the scale of sqrt(eps)
  check_operation(flat, "layer_norm of zeros", level, small_step);
}

}  // namespace

int main() {
  for_levels([](const std::string& level) {
    test_activation(level);
    test_kinks<double>(level);
    test_kinks<float>(level);
    test_linear<double>(level);
    test_linear<float>(level);
    test_layer_norm(level);
    Random random(4);
    for (const int m : {0, 1, 2, 7})
      for (const auto& [in, out] : {std::pair(3, 5), std::pair(17, 1), std::pair(8, 16)}) {
        const Linear op{m, in, out, random.vector(m * in), random.vector(in * out), random.vector(out)};
        check_operation(op, "linear", level);
        check_training(op, "linear", level);
      }
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
          check_training(op, "residual_update", level);
        }
    for (const Activation kind : {Activation::tanh, Activation::sigmoid, Activation::silut})
      for (const int n : {0, 1, 2, 11})
        for (const int n2 : {1, 5, 16}) {
          const G2Embed op{kind, n, n2, random.vector(n, 0.0, 3.0), random.vector(n2), random.vector(n2)};
          check_operation(op, "g2_embed", level);
          check_training(op, "g2_embed", level);
        }
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
