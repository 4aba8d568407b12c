// Dipoles and polarizabilities of atoms: coefficients contracted with the rotation matrix R (theory 9.6, 12.17).
#pragma once

#include <memory>
#include <utility>

#include "heads/head.hpp"
#include "heads/network.hpp"

namespace dpa2 {

/// From the coefficients z of an atom and R (n, 3) to its tensor, and back; in double for models of either precision.
class Contraction {
 public:
  virtual ~Contraction() = default;
  /// Numbers of the tensor.
  [[nodiscard]] virtual int width() const = 0;
  /// value (width) = ; `scratch` (n, 3)
  virtual void forward(double* value, const double* z, const double* R, double* scratch) const = 0;
  /// dz = the gradient of seed . value with respect to z, which does not depend on z.
  virtual void coefficients(double* dz, const double* seed, const double* R) const = 0;
  /// dR (n, 3) = that with respect to R; `scratch` (n, 3)
  virtual void rotation(double* dR, const double* seed, const double* z, const double* R, double* scratch) const = 0;
};

/// mu[x] = sum_c z[c] R[c, x]
class DipoleContraction final : public Contraction {
 public:
  explicit DipoleContraction(int n) : n_(n) {}
  [[nodiscard]] int width() const override { return 3; }
  void forward(double* value, const double* z, const double* R, double* scratch) const override;
  void coefficients(double* dz, const double* seed, const double* R) const override;
  void rotation(double* dR, const double* seed, const double* z, const double* R, double* scratch) const override;

 private:
  int n_;
};

/// A = R^T Z R with the symmetric part Z of the coefficients, a matrix (n, n), or of their diagonal alone (n)
class PolarContraction final : public Contraction {
 public:
  PolarContraction(int n, bool diagonal) : n_(n), diagonal_(diagonal) {}
  [[nodiscard]] int width() const override { return 9; }
  void forward(double* value, const double* z, const double* R, double* scratch) const override;
  void coefficients(double* dz, const double* seed, const double* R) const override;
  void rotation(double* dR, const double* seed, const double* z, const double* R, double* scratch) const override;

 private:
  void product(double* ZR, const double* z, const double* R) const;

  int n_;
  bool diagonal_;
};

template <class T>
class TensorHead : public Head<T> {
 public:
  TensorHead(const Prepared<T>& model, std::unique_ptr<const Contraction> contraction)
      : m_(model), network_(model), contraction_(std::move(contraction)) {}

  [[nodiscard]] int width() const override { return contraction_->width(); }
  [[nodiscard]] bool rotation() const override { return true; }
  void forward(const Frame& frame, int i0, int i1, const Rows<const T>& rows, double* values, Arena& arena) const override {
    run(frame, i0, i1, rows, nullptr, values, nullptr, nullptr, arena);
  }
  void backward(const Frame& frame, int i0, int i1, const Rows<const T>& rows, const double* seed, double* values, const Rows<T>& gradient,
                const HeadGradient<Real<T>>* weights, Arena& arena) const override {
    run(frame, i0, i1, rows, seed, values, &gradient, weights, arena);
  }

 private:
  void run(const Frame& frame, int i0, int i1, const Rows<const T>& rows, const double* seed, double* values, const Rows<T>* gradient,
           const HeadGradient<Real<T>>* weights, Arena& arena) const;

  const Prepared<T>& m_;
  HeadNetwork<T> network_;
  std::unique_ptr<const Contraction> contraction_;
};

extern template class TensorHead<double>;
extern template class TensorHead<float>;

}  // namespace dpa2
