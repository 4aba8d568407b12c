// Weights in double while a model is prepared: padding, folding, packing.
#pragma once

#include <string>
#include <vector>

#include "cpu/linear.hpp"
#include "math/activation.hpp"
#include "model/config.hpp"
#include "graph/prepared.hpp"
#include "model/weights.hpp"

namespace dpa2 {

struct Matrix {
  int rows = 0, cols = 0;
  std::vector<double> a;

  Matrix() = default;
  Matrix(int r, int c) : rows(r), cols(c), a(static_cast<std::size_t>(r) * static_cast<std::size_t>(c)) {}
  double& operator()(int r, int c) { return a[static_cast<std::size_t>(r) * static_cast<std::size_t>(cols) + static_cast<std::size_t>(c)]; }
  double operator()(int r, int c) const { return a[static_cast<std::size_t>(r) * static_cast<std::size_t>(cols) + static_cast<std::size_t>(c)]; }
};

/// The tensor `name` as a matrix; a vector is one row. Throws Error when it is missing.
Matrix matrix(const Weights& weights, const std::string& name);
bool has(const Weights& weights, const std::string& name);

Matrix transposed(const Matrix& m);
Matrix product(const Matrix& a, const Matrix& b);
/// m with zero rows and columns appended.
Matrix padded_to(const Matrix& m, int rows, int cols);

/// m (k, n), n a multiple of 64 bytes, in the panels of `Linear`.
template <class T>
Packed<T> pack(Storage& storage, const Matrix& m);
/// The entries of m in order, followed by zeros up to n (n < 0: as many as there are).
template <class T>
const T* flat(Storage& storage, const Matrix& m, int n = -1);
template <class T>
const T* flat(Storage& storage, const std::vector<double>& v, int n = -1);

template <class T>
ActivationSpec<T> activation(const ActivationConfig& c);
/// A hidden layer in double on rows x: phi(x W + b) * idt + skip; `prefix` ends before ".matrix".
Matrix hidden_layer(const Weights& weights, const std::string& prefix, const ActivationConfig& act, const Matrix& x);

}  // namespace dpa2
