#include "fold/matrix.hpp"

#include "error.hpp"

namespace dpa2 {

Tensor RawTensors::tensor(const std::string& name) {
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
    for (int k = 0; k < a.cols; ++k)
      for (int c = 0; c < b.cols; ++c) y(r, c) += a(r, k) * b(k, c);
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

}  // namespace dpa2
