// exp and tanh of the vectors: the bounds that their headers state, over the whole range; vectors of dual numbers, and products in
// which either factor is dual, which only kernels use. Built once per ISA level, with the
// flags of the kernels of that level, and called by main_simd.cpp, which has none of them.
#include <algorithm>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "check.hpp"
#include "cpu/linear.hpp"
#include "cpu/simd.hpp"

int test_simd();

namespace {

using namespace dpa2;

template <class T>
using Bits = std::conditional_t<std::is_same_v<T, double>, std::uint64_t, std::uint32_t>;

template <class T>
T from_bits(Bits<T> bits) {
  T x;
  std::memcpy(&x, &bits, sizeof(T));
  return x;
}

enum class Function { exp, tanh };

template <Function F, class T>
std::vector<T> evaluate(std::vector<T> x) {
  const std::size_t n = x.size(), w = static_cast<std::size_t>(simd::width<T>);
  x.resize((n + w - 1) / w * w);
  std::vector<T> y(x.size());
  for (std::size_t i = 0; i < x.size(); i += w) {
    const simd::Vec<T> v = simd::load<T>(x.data() + i);
    if constexpr (F == Function::exp)
      simd::store<T>(y.data() + i, simd::exp<T>(v));
    else
      simd::store<T>(y.data() + i, simd::tanh<T>(v));
  }
  // Several vectors at once give the same bits.
  constexpr int together = 4;
  for (std::size_t i = 0; i + together * w <= x.size(); i += together * w) {
    simd::Vec<T> v[together];
    for (int k = 0; k < together; ++k) v[k] = simd::load<T>(x.data() + i + static_cast<std::size_t>(k) * w);
    if constexpr (F == Function::exp)
      simd::exp<T, together>(v);
    else
      simd::tanh<T, together>(v);
    CHECK(std::memcmp(v, y.data() + i, sizeof v) == 0);
  }
  y.resize(n);
  return y;
}

template <Function F, class T>
T one(T x) {
  return evaluate<F, T>({x})[0];
}

/// The exact value, with digits to spare.
template <Function F, class T>
auto exact(T x) {
  using Wide = std::conditional_t<std::is_same_v<T, double>, long double, double>;
  return F == Function::exp ? std::exp(static_cast<Wide>(x)) : std::tanh(static_cast<Wide>(x));
}

/// |y - truth| in units of the last place of the correctly rounded result.
template <class T, class Wide>
double ulps(T y, Wide truth) {
  const T rounded = std::abs(static_cast<T>(truth));
  const Wide unit = static_cast<Wide>(std::nextafter(rounded, std::numeric_limits<T>::infinity())) - static_cast<Wide>(rounded);
  return static_cast<double>(std::abs(static_cast<Wide>(y) - truth) / unit);
}

template <Function F, class T>
void test_error(const std::vector<T>& x, double bound, const std::string& name) {
  const std::vector<T> y = evaluate<F, T>(x);
  double worst = 0;
  T where = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double error = ulps(y[i], exact<F, T>(x[i]));
    if (!(error <= worst)) {
      worst = error;
      where = x[i];
    }
  }
  std::printf("%s: %.2f ulp at %.17g\n", name.c_str(), worst, static_cast<double>(where));
  CHECK_TEXT(worst <= bound, name + ": " + std::to_string(worst) + " ulp at " + std::to_string(where));
}

/// Arguments of every magnitude, and more of them where the functions bend.
template <class T>
std::vector<T> arguments(T low, T high) {
  std::mt19937_64 random(11);
  std::vector<T> x;
  for (int i = 0; i < 400000; ++i) {  // uniform in the bits: all exponents, denormals included
    const T v = from_bits<T>(static_cast<Bits<T>>(random()));
    if (v >= low && v <= high) x.push_back(v);
  }
  std::uniform_real_distribution<double> near(-2, 2);
  std::uniform_real_distribution<double> all(std::max(-1000.0, static_cast<double>(low)), std::min(1000.0, static_cast<double>(high)));
  for (int i = 0; i < 200000; ++i) {
    x.push_back(std::min(high, std::max(low, static_cast<T>(near(random)))));
    x.push_back(std::min(high, std::max(low, static_cast<T>(all(random)))));
  }
  // Around the halves of ln 2, where the range reduction changes its integer.
  const T inf = std::numeric_limits<T>::infinity();
  for (int k = -2000; k <= 2000; ++k) {
    const T centre = static_cast<T>(0.5 * k * 0.69314718055994530942);
    for (const T v : {std::nextafter(centre, -inf), centre, std::nextafter(centre, inf)})
      if (v >= low && v <= high) x.push_back(v);
  }
  x.push_back(low);
  x.push_back(high);
  return x;
}

template <class T>
void test_precision(double exp_bound, double tanh_bound, T lowest, T highest, const std::string& name) {
  using Limits = std::numeric_limits<T>;
  const T inf = Limits::infinity(), nan = Limits::quiet_NaN(), tiny = Limits::denorm_min(), big = Limits::max();
  test_error<Function::exp>(arguments<T>(lowest, highest), exp_bound, "exp " + name);
  test_error<Function::tanh>(arguments<T>(-big, big), tanh_bound, "tanh " + name);

  CHECK(one<Function::exp>(T(0)) == T(1) && one<Function::exp>(T(-0.0)) == T(1) && one<Function::exp>(tiny) == T(1));
  for (const T x : {std::nextafter(lowest, -inf), T(10) * lowest, -big, -inf}) CHECK(one<Function::exp>(x) == one<Function::exp>(lowest));
  for (const T x : {std::nextafter(highest, inf), T(10) * highest, big, inf}) CHECK(one<Function::exp>(x) == one<Function::exp>(highest));
  CHECK(one<Function::exp>(lowest) >= Limits::min() && one<Function::exp>(highest) <= big);
  CHECK(std::isnan(one<Function::exp>(nan)) && std::isnan(one<Function::tanh>(nan)));

  CHECK(one<Function::tanh>(inf) == T(1) && one<Function::tanh>(-inf) == T(-1) && one<Function::tanh>(big) == T(1));
  CHECK(one<Function::tanh>(T(0)) == T(0) && !std::signbit(one<Function::tanh>(T(0))));
  CHECK(one<Function::tanh>(T(-0.0)) == T(0) && std::signbit(one<Function::tanh>(T(-0.0))));
  CHECK(one<Function::tanh>(tiny) == tiny && one<Function::tanh>(-tiny) == -tiny);
  // Odd, within [-1, 1], and each lane on its own.
  const std::vector<T> x = arguments<T>(-big, big), y = evaluate<Function::tanh>(x);
  bool odd = true, bounded = true, lanes = true;
  for (std::size_t i = 0; i < x.size(); ++i) {
    bounded = bounded && std::abs(y[i]) <= T(1);
    if (i % 97 != 0) continue;
    odd = odd && one<Function::tanh>(-x[i]) == -y[i];
    lanes = lanes && one<Function::tanh>(x[i]) == y[i];
  }
  CHECK(odd);
  CHECK(bounded);
  CHECK(lanes);
}

template <class T>
void test_transpose() {
  constexpr int w = simd::width<T>;
  simd::Vec<T> x[w];
  for (int r = 0; r < w; ++r)
    for (int c = 0; c < w; ++c) x[r][c] = static_cast<T>(100 * r + c);
  simd::transpose<T>(x);
  for (int r = 0; r < w; ++r)
    for (int c = 0; c < w; ++c) CHECK(x[r][c] == static_cast<T>(100 * c + r));
}

template <class R>
void test_dual() {
  using D = Dual<R>;
  constexpr int w = simd::width<D>;
  D x[w * w + 1], y[w * w + 1];
  for (int i = 0; i < w * w; ++i) x[i] = {static_cast<R>(0.01 * i), static_cast<R>(i + 0.5)};
  simd::Vec<D> v[w];
  D total(0);
  for (int r = 0; r < w; ++r) {
    v[r] = simd::load<D>(x + static_cast<std::ptrdiff_t>(r) * w);
    for (int c = 0; c < w; ++c) CHECK(v[r].v[c] == x[r * w + c].v && v[r].d[c] == x[r * w + c].d);
  }
  for (int c = 0; c < w; ++c) total += x[c];
  const D sum = simd::sum<D>(v[0]);
  CHECK_NEAR(sum.v, total.v, 1e-4);
  CHECK_NEAR(sum.d, total.d, 1e-4);
  simd::transpose<D>(v);
  y[w * w] = D(1, 2);
  for (int r = 0; r < w; ++r) simd::store<D>(y + static_cast<std::ptrdiff_t>(r) * w, v[r]);
  for (int r = 0; r < w; ++r)
    for (int c = 0; c < w; ++c) CHECK(y[r * w + c].v == x[c * w + r].v && y[r * w + c].d == x[c * w + r].d);
  CHECK(y[w * w].v == 1 && y[w * w].d == 2);
  const simd::Vec<D> a = simd::load<D>(x);
  const simd::Vec<D> e = simd::exp<D>(a), t = simd::tanh<D>(a), q = simd::splat<D>(D(1, 3)) / e;
  const double tolerance = 16 * static_cast<double>(std::numeric_limits<R>::epsilon());
  for (int c = 0; c < w; ++c) {
    const double v0 = x[c].v, d0 = x[c].d, value = std::exp(v0), bend = 1 - std::tanh(v0) * std::tanh(v0), scale = tolerance * (1 + d0);
    CHECK_NEAR(e.v[c], value, tolerance);
    CHECK_NEAR(e.d[c], value * d0, scale);
    CHECK_NEAR(t.v[c], std::tanh(v0), tolerance);
    CHECK_NEAR(t.d[c], bend * d0, scale);
    CHECK_NEAR(q.v[c], 1 / value, tolerance);
    CHECK_NEAR(q.d[c], (3 - d0) / value, 4 * scale);
  }
}

double value(double x) { return x; }
double slope(double) { return 0; }
template <class R>
double value(const Dual<R>& x) {
  return static_cast<double>(x.v);
}
template <class R>
double slope(const Dual<R>& x) {
  return static_cast<double>(x.d);
}
void set(double& x, double v, double) { x = v; }
void set(float& x, double v, double) { x = static_cast<float>(v); }
template <class R>
void set(Dual<R>& x, double v, double d) {
  x = {static_cast<R>(v), static_cast<R>(d)};
}

/// C = A B + bias or C += A B of dual numbers, where A, or B, or both are dual; or, of both, C += the tangent of A B in plain numbers.
template <class A, class B, class C>
void test_product(const char* name) {
  using R = Real<C>;
  using T = std::conditional_t<is_dual<A>, A, B>;
  constexpr bool gradient = !is_dual<C>;
  constexpr int panel = padded<R>(1);
  constexpr double start = 0.015625;
  std::mt19937_64 random(5);
  std::uniform_real_distribution<double> number(-1, 1);
  const auto size = [](long n) { return static_cast<std::size_t>(n); };
  int variant = 0;
  for (const int m : {0, 1, 5, 13, 25})
    for (const int n : {panel, 2 * panel, 5 * panel})
      for (const int depth : {0, 1, 17, 161, 333})
        for (const bool rows : {false, true}) {
          const long ars = rows ? depth + 3 : 1, acs = rows ? 1 : m + 3, ldc = n + panel, ldb = n + panel;
          std::vector<A> a(size((rows ? m : depth) * (rows ? ars : acs)));
          std::vector<B> b(size(depth * ldb));
          std::vector<C> c(size(m * ldc));
          std::vector<R> bias(size(n), R(0.5));
          for (A& x : a) set(x, number(random), number(random));
          for (B& x : b) set(x, number(random), number(random));
          for (C& x : c) set(x, start, start);
          const bool accumulate = gradient || ++variant % 3 == 0, biased = !accumulate && variant % 3 == 1;
          if constexpr (gradient)
            Linear<T, isa::DPA2_ISA>::gradient(m, n, depth, c.data(), ldc, a.data(), ars, acs, b.data(), ldb, panel);
          else
            Linear<T, isa::DPA2_ISA>::template run<A, B>(m, n, depth, c.data(), ldc, a.data(), ars, acs, b.data(), ldb, panel,
                                                         biased ? bias.data() : nullptr, accumulate);
          bool good = true, untouched = true;
          const double rounding = (2 * depth + 2) * static_cast<double>(std::numeric_limits<R>::epsilon());
          for (int r = 0; r < m; ++r) {
            for (int k = 0; k < n; ++k) {
              double v = accumulate ? start : biased ? 0.5 : 0.0, d = accumulate ? start : 0.0, v_size = v, d_size = d;
              for (int p = 0; p < depth; ++p) {
                const A& x = a[size(r * ars + p * acs)];
                const B& y = b[size(p * ldb + k)];
                v += value(x) * value(y);
                d += value(x) * slope(y) + slope(x) * value(y);
                v_size += std::abs(value(x) * value(y));
                d_size += std::abs(value(x) * slope(y)) + std::abs(slope(x) * value(y));
              }
              const C& found = c[size(r * ldc + k)];
              if constexpr (gradient)
                good = good && std::abs(value(found) - d) <= rounding * d_size;
              else
                good = good && std::abs(value(found) - v) <= rounding * v_size && std::abs(slope(found) - d) <= rounding * d_size;
            }
            for (long k = n; k < ldc; ++k) untouched = untouched && value(c[size(r * ldc + k)]) == start;
          }
          const std::string text = std::string(name) + " " + std::to_string(m) + " " + std::to_string(n) + " " + std::to_string(depth);
          CHECK_CASE(good, text);
          CHECK_CASE(untouched, text);
        }
}

template <class R>
void test_products() {
  test_product<Dual<R>, R, Dual<R>>("dual x plain");
  test_product<R, Dual<R>, Dual<R>>("plain x dual");
  test_product<Dual<R>, Dual<R>, Dual<R>>("dual x dual");
  test_product<Dual<R>, Dual<R>, R>("tangent of dual x dual");
}

}  // namespace

int test_simd() {
  test_dual<double>();
  test_dual<float>();
  test_products<double>();
  test_products<float>();
  test_transpose<double>();
  test_transpose<float>();
  test_precision<double>(2.0, 3.0, -708.0, 709.0, "double");
  test_precision<float>(2.0, 4.0, -87.0f, 88.0f, "float");
  return check::finish();
}
