// What the tests of the operations share. An operation is a function of blocks of numbers; each test brings
//   inputs()            the blocks;
//   reference<S>(x)     the formula of docs/theory.md in plain loops, for S = double and S = complex<double>;
//   forward(k, x)       the kernel of a table, in float or double, between guarded arrays;
//   backward(k, x, dy)  the kernel's gradient in the order of the inputs.
// The complex step gives the exact derivative of the reference, without a difference of nearly equal numbers.
//
// Training asks more (training.hpp): kernels on dual numbers and, where the operation has weights, their gradients. It brings
//   weights()                    the weights as blocks, in shapes without padding; not there when there are none;
//   reference<S>(x, w)           in place of reference<S>(x): inputs and weights are of S, which may also be `Mixed`. Functions are
//                                called by their plain names then, exp(x) and not std::exp(x), and kinks are found with real(x);
//   forward(k, x)                of `const Kernels<T>&` and `const BlocksOf<T>&`, for T = Dual<float> and Dual<double> as well.
//                                Inputs go into Guarded<T>, Rows<T>; weights, which the operation keeps, into those of Real<T>;
//   backward(k, x, dy, dw)       likewise, with `Blocks* dw = nullptr`: where it is not null, the gradients of the weights, which
//                                start from start_value in Guarded<Real<T>>, less that. Without weights there is no dw.
// `check_operation` is called as before and `check_training` beside it.
#pragma once

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include "check.hpp"
#include "cpu/kernels.hpp"
#include "graph/prepared.hpp"
#include "math/wide.hpp"

namespace dpa2 {

/// In value and tangent.
template <class R>
bool operator==(const Dual<R>& a, const Dual<R>& b) {
  return a.v == b.v && a.d == b.d;
}

}  // namespace dpa2

namespace operation {

using dpa2::padded;
using Complex = std::complex<double>;
template <class S>
using Values = std::vector<std::vector<S>>;
using Vector = std::vector<double>;
using Blocks = Values<double>;
using dpa2::Dual;
using dpa2::is_dual;
using dpa2::Real;
using dpa2::Wide;  // what goes into a kernel on T and comes out of it, in double: numbers, or dual numbers
template <class T>
using BlocksOf = Values<Wide<T>>;

inline std::size_t at(long i) { return static_cast<std::size_t>(i); }
inline double real(double x) { return x; }
inline double real(const Complex& x) { return x.real(); }
using std::exp;
using std::log;
using std::sqrt;
using std::tanh;

/// A number of T: of another precision, or a constant among dual numbers.
template <class T, class N>
T number(const N& x) {
  if constexpr (is_dual<N>)
    return {static_cast<Real<T>>(x.v), static_cast<Real<T>>(x.d)};
  else
    return static_cast<T>(x);
}
/// What stands where nothing belongs: the same in a value and in its tangent.
template <class T>
T filler(double x) {
  if constexpr (is_dual<T>)
    return {static_cast<Real<T>>(x), static_cast<Real<T>>(x)};
  else
    return static_cast<T>(x);
}
template <class T>
bool is_nan(const T& x) {
  if constexpr (is_dual<T>)
    return std::isnan(x.v) && std::isnan(x.d);
  else
    return std::isnan(x);
}

/// The same number; of dual ones the same tangent too.
template <class T>
bool equal(const T& a, const T& b) {
  if constexpr (is_dual<T>)
    return a.v == b.v && a.d == b.d;
  else
    return a == b;
}

/// Random numbers that float32 represents exactly: both precisions then start from the same values.
class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}
  double operator()(double low = -1.0, double high = 1.0) {
    return static_cast<float>(std::uniform_real_distribution<double>(low, high)(engine_));
  }
  int below(int n) { return static_cast<int>(engine_() % static_cast<std::uint64_t>(n)); }
  Vector vector(long n, double low = -1.0, double high = 1.0) {
    Vector v(at(n));
    for (double& x : v) x = (*this)(low, high);
    return v;
  }
  std::vector<int> integers(long n, int limit) {
    std::vector<int> v(at(n));
    for (int& x : v) x = below(limit);
    return v;
  }
  std::vector<int> permutation(int n) {
    std::vector<int> v(at(n));
    for (int i = 0; i < n; ++i) v[at(i)] = i;
    std::shuffle(v.begin(), v.end(), engine_);
    return v;
  }

 private:
  std::mt19937_64 engine_;
};

/// The value that outputs with += start from, and garbage that may be read but must not matter.
inline constexpr double start_value = 0.015625, garbage = 0.7578125;

/// An array between two canaries, aligned to 64 bytes, or off that by `shift` elements (arrays per edge begin anywhere).
template <class T>
class Guarded {
 public:
  explicit Guarded(long n, T fill = filler<T>(NAN), int shift = 0) : n_(n), base_(static_cast<char*>(std::aligned_alloc(64, bytes(n)))) {
    std::memset(base_, pattern, bytes(n));
    data_ = reinterpret_cast<T*>(base_ + 64) + shift;
    std::fill_n(data_, n, fill);
  }
  /// The values of a block, as they are.
  template <class N>
  explicit Guarded(const std::vector<N>& values, int shift = 0) : Guarded(static_cast<long>(values.size()), T(0), shift) {
    for (long i = 0; i < n_; ++i) data_[i] = number<T>(values[at(i)]);
  }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  ~Guarded() {
    bool intact = true;
    for (const char* p = base_; p < reinterpret_cast<char*>(data_); ++p) intact = intact && *p == pattern;
    for (const char* p = reinterpret_cast<char*>(data_ + n_); p < base_ + bytes(n_); ++p) intact = intact && *p == pattern;
    CHECK_TEXT(intact, "nothing is written outside of an array of " + std::to_string(n_));
    std::free(base_);
  }
  operator T*() { return data_; }  // NOLINT: stands for the pointer in the calls of kernels
  T* data() { return data_; }
  T& operator()(long i) { return data_[i]; }
  /// n values from position `first` on, less what they started from.
  std::vector<Wide<T>> values(long n = -1, double start = 0.0, long first = 0) const {
    std::vector<Wide<T>> v(at(n < 0 ? n_ : n));
    for (std::size_t i = 0; i < v.size(); ++i) v[i] = number<Wide<T>>(data_[first + static_cast<long>(i)]) - start;
    return v;
  }
  /// Rows of `width` out of rows of `ld`.
  std::vector<Wide<T>> rows(long n, long width, long ld, double start = 0.0) const {
    std::vector<Wide<T>> v;
    for (long r = 0; r < n; ++r)
      for (long c = 0; c < width; ++c) v.push_back(number<Wide<T>>(data_[r * ld + c]) - start);
    return v;
  }
  /// Writes rows of `width` into rows of `ld`, the rest of a row is `fill`.
  template <class N>
  void set_rows(const std::vector<N>& v, long n, long width, long ld, double fill) {
    for (long r = 0; r < n; ++r)
      for (long c = 0; c < ld; ++c) data_[r * ld + c] = c < width ? number<T>(v[at(r * width + c)]) : filler<T>(fill);
  }

 private:
  static constexpr char pattern = 0x5a;
  static std::size_t bytes(long n) { return (at(n) * sizeof(T) + 63) / 64 * 64 + 128; }
  long n_;
  char* base_;
  T* data_;
};

/// Rows of `width` as an array with rows of `ld`.
template <class T>
struct Rows : Guarded<T> {
  template <class N>
  Rows(const std::vector<N>& v, long n, long width, long ld, double fill = garbage) : Guarded<T>(n * ld) {
    this->set_rows(v, n, width, ld, fill);
  }
};

/// A matrix (k, n) with zeros up to (kp, np), in the panels of `Linear`.
template <class T>
struct Panels {
  Panels(const Vector& m, int k, int n, int kp, int np) : array(static_cast<long>(kp) * np, T(0)), packed{array, kp, np} {
    const int panel = padded<T>(1);
    for (int r = 0; r < k; ++r)
      for (int c = 0; c < n; ++c)
        array((static_cast<long>(c / panel) * kp + r) * panel + c % panel) = static_cast<T>(m[at(static_cast<long>(r) * n + c)]);
  }
  Guarded<T> array;
  dpa2::Packed<T> packed;
};

inline Vector transpose(const Vector& m, int k, int n) {
  Vector t(m.size());
  for (int r = 0; r < k; ++r)
    for (int c = 0; c < n; ++c) t[at(static_cast<long>(c) * k + r)] = m[at(static_cast<long>(r) * n + c)];
  return t;
}

/// y (m, n) = x (m, k) w (k, n)
template <class S, class W>
auto product(const std::vector<S>& x, const std::vector<W>& w, long m, long k, long n) {
  std::vector<decltype(S() * W())> y(at(m * n));
  for (long r = 0; r < m; ++r)
    for (long c = 0; c < n; ++c)
      for (long p = 0; p < k; ++p) y[at(r * n + c)] += x[at(r * k + p)] * w[at(p * n + c)];
  return y;
}

/// The activations (theory 4.2).
template <class S>
S phi(dpa2::Activation kind, double threshold, S x) {
  const auto s = [](S v) { return 1.0 / (1.0 + exp(-v)); };
  switch (kind) {
    case dpa2::Activation::linear:
      return x;
    case dpa2::Activation::tanh:
      return tanh(x);
    case dpa2::Activation::relu:
      return real(x) > 0 ? x : S(0);
    case dpa2::Activation::relu6:
      return real(x) > 6 ? S(6) : real(x) > 0 ? x : S(0);
    case dpa2::Activation::sigmoid:
      return s(x);
    case dpa2::Activation::softplus:
      return real(x) > 20 ? x : log(1.0 + exp(x));
    case dpa2::Activation::gelu:
      return x * 0.5 * (1.0 + tanh(std::sqrt(2.0 / std::acos(-1.0)) * (x + 0.044715 * x * x * x)));
    case dpa2::Activation::silu:
      return x * s(x);
    case dpa2::Activation::silut: {
      if (real(x) < threshold) return x * s(x);
      const double st = 1.0 / (1.0 + exp(-threshold)), k = st + threshold * st * (1.0 - st);
      return tanh(k * (x - threshold)) + threshold * st;
    }
  }
  return x;
}

template <class T>
dpa2::ActivationSpec<T> activation(dpa2::Activation kind, double threshold = 3.0) {
  const double s = 1.0 / (1.0 + std::exp(-threshold));
  return {kind, {static_cast<T>(threshold), static_cast<T>(s + threshold * s * (1.0 - s)), static_cast<T>(threshold * s)}};
}

/// Largest |a - b| of a block relative to the block's largest number; infinite where the sizes differ or a number is not finite.
inline double distance(const Vector& a, const Vector& b) {
  if (a.size() != b.size()) return INFINITY;
  double error = 0, scale = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (!std::isfinite(a[i]) || !std::isfinite(b[i])) return INFINITY;
    error = std::max(error, std::abs(a[i] - b[i]));
    scale = std::max(scale, std::abs(a[i]));
  }
  return error == 0 ? 0 : error / std::max(scale, 1e-3);
}

inline bool close(const Blocks& expected, const Blocks& found, double tolerance, const std::string& what) {
  CHECK_TEXT(expected.size() == found.size(), "number of blocks of " + what);
  bool good = expected.size() == found.size();
  for (std::size_t b = 0; b < expected.size() && b < found.size(); ++b) {
    const double error = distance(expected[b], found[b]);
    good = CHECK_TEXT(error <= tolerance,
                      what + ", block " + std::to_string(b) + ": error " + std::to_string(error / tolerance) + " times the tolerance") &&
           good;
  }
  return good;
}

inline double dot(const Blocks& a, const Blocks& b, bool absolute = false) {
  double sum = 0;
  for (std::size_t k = 0; k < a.size(); ++k)
    for (std::size_t i = 0; i < a[k].size(); ++i) sum += absolute ? std::abs(a[k][i] * b[k][i]) : a[k][i] * b[k][i];
  return sum;
}

/// The weights of an operation, none where it has none.
template <class Op, class = void>
struct WeightsOf {
  static constexpr bool some = false;
  static Blocks get(const Op&) { return {}; }
};
template <class Op>
struct WeightsOf<Op, std::void_t<decltype(std::declval<const Op&>().weights())>> {
  static constexpr bool some = true;
  static Blocks get(const Op& op) { return op.weights(); }
};

template <class S, class Op>
Values<S> reference(const Op& op, const Values<S>& x, const Values<S>& w) {
  if constexpr (WeightsOf<Op>::some)
    return op.template reference<S>(x, w);
  else
    return op.template reference<S>(x);
}

/// Of the complex step: nothing of it is lost, and its square is nothing.
inline constexpr double tiny = 1e-30;

/// x + i tiny v; v may be empty for none
inline Values<Complex> stepped(const Blocks& x, const Blocks& v) {
  Values<Complex> z(x.size());
  for (std::size_t b = 0; b < x.size(); ++b)
    for (std::size_t i = 0; i < x[b].size(); ++i) z[b].push_back({x[b][i], v.empty() ? 0.0 : tiny * v[b][i]});
  return z;
}

/// Derivative of the reference along v of the inputs and wv of the weights (empty: none).
template <class Op>
Blocks tangent(const Op& op, const Blocks& x, const Blocks& v, const Blocks& wv = {}) {
  Blocks out;
  for (const std::vector<Complex>& block : reference<Complex>(op, stepped(x, v), stepped(WeightsOf<Op>::get(op), wv))) {
    out.emplace_back();
    for (const Complex& value : block) out.back().push_back(value.imag() / tiny);
  }
  return out;
}

struct Bounds {
  double forward = 2e-14;        ///< kernel in double to the reference, relative to the largest number of a block
  double difference = 1e-7;      ///< gradient to central differences of the kernel's forward
  double adjoint = 1e-12;        ///< <dy, J v> to <J^T dy, v>, relative to the sum of the products' sizes
  double single = 2e-6;          ///< float32 to double, forward and backward
  double tangent = 1e-12;        ///< forward of dual numbers: tangent to the exact one, relative to the largest number of a block
  double single_tangent = 1e-5;  ///< float32 to double: tangents, and gradients of weights
  double step = 1e-3;            ///< of the central differences (two steps, extrapolated: error of order step^4)
};

/// Everything that an operation promises, for one ISA level.
template <class Op>
void check_operation(const Op& op, const std::string& name, const std::string& level, const Bounds& bounds = Bounds()) {
  const std::string what = name + " at " + level;
  const dpa2::Kernels<double>& k64 = dpa2::kernels<double>(level);
  const dpa2::Kernels<float>& k32 = dpa2::kernels<float>(level);
  const Blocks x = op.inputs();
  const Blocks expected = reference<double>(op, x, WeightsOf<Op>::get(op));
  close(expected, op.forward(k64, x), bounds.forward, what + ", forward");
  close(expected, op.forward(k32, x), bounds.single, what + ", forward in float32");

  Random random(7);
  Blocks dy;
  for (const Vector& block : expected) dy.push_back(random.vector(static_cast<long>(block.size())));
  const Blocks dx = op.backward(k64, x, dy);
  close(dx, op.backward(k32, x, dy), bounds.single, what + ", backward in float32");
  CHECK_CASE(dx.size() == x.size(), what);

  for (std::size_t b = 0; b < x.size() && b < dx.size(); ++b) {
    CHECK_CASE(dx[b].size() == x[b].size(), what);
    if (x[b].empty() || dx[b].size() != x[b].size()) continue;
    const std::string where = what + ", input " + std::to_string(b);
    // The adjoint test, for one input at a time: a large one must not hide a small one.
    Blocks v;
    for (const Vector& block : x) v.emplace_back(block.size(), 0.0);
    v[b] = random.vector(static_cast<long>(x[b].size()));
    const Blocks Jv = tangent(op, x, v);
    const double left = dot(dy, Jv), right = dot(dx, v), scale = std::max({dot(dy, Jv, true), dot(dx, v, true), 1e-3});
    CHECK_TEXT(std::abs(left - right) <= bounds.adjoint * scale,
               where + ", adjoint: " + std::to_string(std::abs(left - right) / scale / bounds.adjoint) + " times the tolerance");

    // Element by element: the exact derivative and central differences of the kernel itself.
    double largest = 1e-3;
    for (const double g : dx[b]) largest = std::max(largest, std::abs(g));
    const std::size_t samples = std::min<std::size_t>(x[b].size(), 12);
    for (std::size_t s = 0; s < samples; ++s) {
      const std::size_t i = samples == x[b].size() ? s : static_cast<std::size_t>(random.below(static_cast<int>(x[b].size())));
      for (std::size_t k = 0; k < v[b].size(); ++k) v[b][k] = k == i ? 1.0 : 0.0;
      const double exact = dot(dy, tangent(op, x, v));
      CHECK_TEXT(std::abs(exact - dx[b][i]) <= 10 * bounds.adjoint * largest,
                 where + ", element " + std::to_string(i) + ": " + std::to_string(dx[b][i]) + " for " + std::to_string(exact));
      const auto difference = [&](double h) {
        Blocks plus = x, minus = x;
        plus[b][i] += h;
        minus[b][i] -= h;
        return (dot(dy, op.forward(k64, plus)) - dot(dy, op.forward(k64, minus))) / (2 * h);
      };
      const double central = (4 * difference(bounds.step / 2) - difference(bounds.step)) / 3;
      CHECK_TEXT(
          std::abs(central - dx[b][i]) <= bounds.difference * largest,
          where + ", element " + std::to_string(i) + ": " + std::to_string(dx[b][i]) + " for the difference " + std::to_string(central));
    }
  }
}

/// f(level) for every ISA level that this processor runs.
template <class F>
void for_levels(F f) {
#if defined(__GLIBC__)
  // Each call has an arena of its own, of megabytes: memory is kept in between, or the system would clear it every time.
  mallopt(M_MMAP_THRESHOLD, 1 << 25);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  mallopt(M_TOP_PAD, 1 << 26);
#endif
  for (const char* const* level = dpa2::isa_names(); *level != nullptr; ++level) f(std::string(*level));
}

}  // namespace operation
