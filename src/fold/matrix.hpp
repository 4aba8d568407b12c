// Weights in double while a model is folded.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "schema/weights.hpp"

namespace dpa2 {

struct Matrix {
  int rows = 0, cols = 0;
  std::vector<double> a;

  Matrix() = default;
  Matrix(int r, int c) : rows(r), cols(c), a(static_cast<std::size_t>(r) * static_cast<std::size_t>(c)) {}
  double& operator()(int r, int c) { return a[static_cast<std::size_t>(r) * static_cast<std::size_t>(cols) + static_cast<std::size_t>(c)]; }
  double operator()(int r, int c) const {
    return a[static_cast<std::size_t>(r) * static_cast<std::size_t>(cols) + static_cast<std::size_t>(c)];
  }
  bool empty() const { return a.empty(); }
};

/// The raw tensors of a model, for folds: each takes its own out, so that arrays move instead of being copied. Who asks for one
/// a second time is told that it is missing.
class RawTensors {
 public:
  explicit RawTensors(Weights weights) : weights_(std::move(weights)) {}

  bool has(const std::string& name) const { return weights_.find(name) != weights_.end(); }
  /// Throws Error when it is missing.
  Tensor tensor(const std::string& name);
  /// The same as a matrix; a vector is one row.
  Matrix matrix(const std::string& name);

 private:
  Weights weights_;
};

Matrix transposed(const Matrix& m);
Matrix product(const Matrix& a, const Matrix& b);
/// m with zero rows and columns appended.
Matrix padded_to(const Matrix& m, int rows, int cols);
/// Columns, or rows, first, first + step, ... of m.
Matrix columns(const Matrix& m, int first, int step, int count);
Matrix rows(const Matrix& m, int first, int step, int count);
/// Writes scale * from into `to`, its first entry at (row, col).
void place(Matrix& to, const Matrix& from, int row, int col, double scale = 1.0);
/// Removes the mean over the columns of every row: m (I - 11^T / cols).
void remove_row_means(Matrix& m);

/// Calls f(name, m) for a matrix that the model has.
template <class F>
void give(F& f, const std::string& name, const Matrix& m) {
  if (!m.empty()) f(name, m);
}

}  // namespace dpa2
