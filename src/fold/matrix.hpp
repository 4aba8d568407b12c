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
  /// For adjoints of folds: weights that stay where they are, and are copied as often as somebody asks. They outlive this.
  static RawTensors of(const Weights& weights);

  bool has(const std::string& name) const;
  /// Throws Error when it is missing.
  Tensor tensor(const std::string& name);
  /// The same as a matrix; a vector is one row.
  Matrix matrix(const std::string& name);

 private:
  Weights weights_;
  const Weights* seen_ = nullptr;
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
/// Removes the mean over the columns of every row: m (I - 11^T / cols). It is its own adjoint.
void remove_row_means(Matrix& m);

void multiply(Matrix& m, double by);
/// to += m, both of one shape.
void add(Matrix& to, const Matrix& m);
/// Adds m to columns, or rows, first, first + step, ... of `to`: the adjoints of columns() and rows().
void add_columns(Matrix& to, const Matrix& m, int first, int step);
void add_rows(Matrix& to, const Matrix& m, int first, int step);
/// (1, cols) the sums of the columns.
Matrix column_sums(const Matrix& m);

/// Adds the gradient of a raw tensor, as RawTensors::matrix gives it, to those that are collected; an empty one is zero. A name
/// that is not there, or another shape, is an internal error.
void add(Weights& to, const std::string& name, const Matrix& gradient);
/// Throws an internal error unless a gradient is empty, which stands for zero, or has this shape. True where there is something to add.
bool given(const Matrix& gradient, int rows, int cols, const char* name);

/// Calls f(name, m) for a matrix that the model has.
template <class F>
void give(F& f, const std::string& name, const Matrix& m) {
  if (!m.empty()) f(name, m);
}

}  // namespace dpa2
