#include "graph/packing.hpp"

#include <cmath>

#include "error.hpp"
#include "math/skip.hpp"

namespace dpa2 {

namespace {

struct Functions {
  static double exp(double x) { return std::exp(x); }
  static double tanh(double x) { return std::tanh(x); }
  static double log1p(double x) { return std::log1p(x); }
};

template <class T>
math::Silut<T> silut_constants(double threshold) {
  const double s = 1.0 / (1.0 + std::exp(-threshold));
  return {static_cast<T>(threshold), static_cast<T>(s + threshold * s * (1.0 - s)), static_cast<T>(threshold * s)};
}

double phi(const ActivationConfig& c, double x) {
  const math::Silut<double> silut = silut_constants<double>(c.threshold);
  double y = 0, dy = 0;
  switch (c.kind) {
#define DPA2_CASE(A)                                                   \
  case Activation::A:                                                  \
    math::activate<Activation::A, Functions, double>(x, silut, y, dy); \
    break;
    DPA2_CASE(linear) DPA2_CASE(tanh) DPA2_CASE(relu) DPA2_CASE(relu6) DPA2_CASE(sigmoid) DPA2_CASE(softplus) DPA2_CASE(gelu)
    DPA2_CASE(silu) DPA2_CASE(silut)
#undef DPA2_CASE
  }
  return y;
}

}  // namespace

Matrix matrix(const Weights& weights, const std::string& name) {
  const auto it = weights.find(name);
  if (it == weights.end()) throw model_file_error("tensor '", name, "' is missing");
  const Tensor& t = it->second;
  Matrix m;
  m.rows = t.shape.size() > 1 ? static_cast<int>(t.shape[0]) : 1;
  m.cols = m.rows > 0 ? static_cast<int>(t.data.size() / static_cast<std::size_t>(m.rows)) : 0;
  m.a = t.data;
  return m;
}

bool has(const Weights& weights, const std::string& name) { return weights.find(name) != weights.end(); }

Matrix transposed(const Matrix& m) {
  Matrix t(m.cols, m.rows);
  for (int r = 0; r < m.rows; ++r)
    for (int c = 0; c < m.cols; ++c) t(c, r) = m(r, c);
  return t;
}

Matrix product(const Matrix& a, const Matrix& b) {
  if (a.cols != b.rows) throw internal_error("matrix product of ", a.cols, " columns with ", b.rows, " rows");
  Matrix y(a.rows, b.cols);
  for (int r = 0; r < a.rows; ++r)
    for (int k = 0; k < a.cols; ++k)
      for (int c = 0; c < b.cols; ++c) y(r, c) += a(r, k) * b(k, c);
  return y;
}

Matrix padded_to(const Matrix& m, int rows, int cols) {
  Matrix p(rows, cols);
  for (int r = 0; r < m.rows; ++r)
    for (int c = 0; c < m.cols; ++c) p(r, c) = m(r, c);
  return p;
}

template <class T>
Packed<T> pack(Storage& storage, const Matrix& m) {
  constexpr int panel = padded<T>(1);
  if (m.cols % panel != 0) throw internal_error("packed matrix with ", m.cols, " columns");
  T* p = storage.take<T>(m.a.size());
  for (int c = 0; c < m.cols; ++c)
    for (int r = 0; r < m.rows; ++r)
      p[(static_cast<long>(c / panel) * m.rows + r) * panel + c % panel] = static_cast<T>(m(r, c));
  return {p, m.rows, m.cols};
}

template <class T>
const T* flat(Storage& storage, const std::vector<double>& v, int n) {
  const std::size_t size = n < 0 ? v.size() : static_cast<std::size_t>(n);
  T* p = storage.take<T>(size);
  for (std::size_t i = 0; i < v.size() && i < size; ++i) p[i] = static_cast<T>(v[i]);
  return p;
}

template <class T>
const T* flat(Storage& storage, const Matrix& m, int n) {
  return flat<T>(storage, m.a, n);
}

template <class T>
ActivationSpec<T> activation(const ActivationConfig& c) {
  return {c.kind, silut_constants<T>(c.threshold)};
}

Matrix hidden_layer(const Weights& weights, const std::string& prefix, const ActivationConfig& act, const Matrix& x) {
  const Matrix w = matrix(weights, prefix + ".matrix"), b = matrix(weights, prefix + ".bias");
  Matrix y = product(x, w);
  const bool scaled = has(weights, prefix + ".idt");
  const Matrix idt = scaled ? matrix(weights, prefix + ".idt") : Matrix();
  for (int r = 0; r < y.rows; ++r)
    for (int c = 0; c < y.cols; ++c) {
      y(r, c) = phi(act, y(r, c) + b(0, c)) * (scaled ? idt(0, c) : 1.0);
      if (math::skip_copies(w.rows, w.cols) != 0) y(r, c) += x(r, c % w.rows);
    }
  return y;
}

#define DPA2_INSTANTIATE_FOR(T)                                              \
  template Packed<T> pack<T>(Storage&, const Matrix&);                       \
  template const T* flat<T>(Storage&, const Matrix&, int);                   \
  template const T* flat<T>(Storage&, const std::vector<double>&, int);      \
  template ActivationSpec<T> activation<T>(const ActivationConfig&);
DPA2_INSTANTIATE_FOR(double)
DPA2_INSTANTIATE_FOR(float)

}  // namespace dpa2
