#include "fold/matrix.hpp"

#include "error.hpp"

namespace dpa2 {

RawTensors RawTensors::of(const Weights& weights) {
  RawTensors raw{Weights()};
  raw.seen_ = &weights;
  return raw;
}

bool RawTensors::has(const std::string& name) const { return (seen_ != nullptr ? *seen_ : weights_).count(name) != 0; }

Tensor RawTensors::tensor(const std::string& name) {
  if (seen_ != nullptr) {
    const auto it = seen_->find(name);
    if (it == seen_->end()) throw model_file_error("tensor '", name, "' is missing");
    return it->second;
  }
  const auto it = weights_.find(name);
  if (it == weights_.end()) throw model_file_error("tensor '", name, "' is missing");
  Tensor t = std::move(it->second);
  weights_.erase(it);
  return t;
}

Matrix RawTensors::matrix(const std::string& name) {
  Tensor t = tensor(name);
  Matrix m;
  m.rows = t.shape.size() > 1 ? static_cast<int>(t.shape[0]) : 1;
  m.cols = m.rows > 0 ? static_cast<int>(t.data.size() / static_cast<std::size_t>(m.rows)) : 0;
  m.a = std::move(t.data);
  return m;
}

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
    for (int k = 0; k < a.cols; ++k) {
      const double factor = a(r, k);
      for (int c = 0; c < b.cols; ++c) y(r, c) += factor * b(k, c);
    }
  return y;
}

Matrix padded_to(const Matrix& m, int rows, int cols) {
  Matrix p(rows, cols);
  place(p, m, 0, 0);
  return p;
}

Matrix columns(const Matrix& m, int first, int step, int count) {
  Matrix y(m.rows, count);
  for (int r = 0; r < m.rows; ++r)
    for (int c = 0; c < count; ++c) y(r, c) = m(r, first + c * step);
  return y;
}

Matrix rows(const Matrix& m, int first, int step, int count) {
  Matrix y(count, m.cols);
  for (int r = 0; r < count; ++r)
    for (int c = 0; c < m.cols; ++c) y(r, c) = m(first + r * step, c);
  return y;
}

void place(Matrix& to, const Matrix& from, int row, int col, double scale) {
  for (int r = 0; r < from.rows; ++r)
    for (int c = 0; c < from.cols; ++c) to(row + r, col + c) = scale * from(r, c);
}

void remove_row_means(Matrix& m) {
  for (int r = 0; r < m.rows; ++r) {
    double mean = 0;
    for (int c = 0; c < m.cols; ++c) mean += m(r, c);
    mean /= m.cols;
    for (int c = 0; c < m.cols; ++c) m(r, c) -= mean;
  }
}

void multiply(Matrix& m, double by) {
  for (double& x : m.a) x *= by;
}

void add(Matrix& to, const Matrix& m) {
  if (to.rows != m.rows || to.cols != m.cols)
    throw internal_error("a matrix (", m.rows, ", ", m.cols, ") is added to one of shape (", to.rows, ", ", to.cols, ")");
  for (std::size_t k = 0; k < m.a.size(); ++k) to.a[k] += m.a[k];
}

void add_columns(Matrix& to, const Matrix& m, int first, int step) {
  for (int r = 0; r < m.rows; ++r)
    for (int c = 0; c < m.cols; ++c) to(r, first + c * step) += m(r, c);
}

void add_rows(Matrix& to, const Matrix& m, int first, int step) {
  for (int r = 0; r < m.rows; ++r)
    for (int c = 0; c < m.cols; ++c) to(first + r * step, c) += m(r, c);
}

Matrix column_sums(const Matrix& m) {
  Matrix sums(1, m.cols);
  for (int r = 0; r < m.rows; ++r)
    for (int c = 0; c < m.cols; ++c) sums(0, c) += m(r, c);
  return sums;
}

void add(Weights& to, const std::string& name, const Matrix& gradient) {
  if (gradient.empty()) return;
  const auto it = to.find(name);
  if (it == to.end()) throw internal_error("there is a gradient of '", name, "', which is no parameter of this model");
  Tensor& t = it->second;
  const bool vector = t.shape.size() < 2;
  if (gradient.a.size() != t.data.size() || gradient.rows != (vector ? 1 : t.shape[0]))
    throw internal_error("the gradient of '", name, "' has shape (", gradient.rows, ", ", gradient.cols, ")");
  for (std::size_t k = 0; k < t.data.size(); ++k) t.data[k] += gradient.a[k];
}

bool given(const Matrix& gradient, int rows, int cols, const char* name) {
  if (gradient.empty()) return false;
  if (gradient.rows != rows || gradient.cols != cols)
    throw internal_error("the gradient of ", name, " has shape (", gradient.rows, ", ", gradient.cols, "), expected (", rows, ", ", cols,
                         ")");
  return true;
}

}  // namespace dpa2
