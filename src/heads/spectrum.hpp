// Outputs that are the coefficients themselves: energies, densities of states, properties, populations (theory 9.1, 9.5).
#pragma once

#include "heads/head.hpp"
#include "heads/network.hpp"

namespace dpa2 {

template <class T>
class SpectrumHead : public Head<T> {
 public:
  explicit SpectrumHead(const Prepared<Real<T>>& model) : network_(model) {}

  [[nodiscard]] int width() const override { return network_.width(); }
  void forward(const Frame& frame, int i0, int i1, const Rows<const T>& rows, double* values, Arena& arena) const override {
    network_.run(frame, i0, i1, rows.g1, nullptr, values, nullptr, nullptr, arena);
  }
  void backward(const Frame& frame, int i0, int i1, const Rows<const T>& rows, const double* seed, double* values, const Rows<T>& gradient,
                const HeadGradient<Real<T>>* weights, Arena& arena) const override {
    network_.run(frame, i0, i1, rows.g1, seed, values, gradient.g1, weights, arena);
  }

 private:
  HeadNetwork<T> network_;
};

}  // namespace dpa2
