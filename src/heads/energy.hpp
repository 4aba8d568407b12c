// Energies of atoms, and their gradients with respect to g1 (theory 9.1, 12.2).
#pragma once

#include "heads/head.hpp"

namespace dpa2 {

/// Energies, forces, virials, in deepmd-kit's shapes.
std::vector<OutputSpec> energy_outputs();

template <class T>
class EnergyHead : public Head<T> {
 public:
  explicit EnergyHead(const Prepared<T>& model) : m_(model), k_(model.kernels) {}

  [[nodiscard]] std::vector<OutputSpec> outputs() const override { return energy_outputs(); }
  [[nodiscard]] int width() const override { return 1; }
  void forward(const Frame& frame, int i0, int i1, const Rows<const T>& rows, double* values, Arena& arena) const override;
  void backward(const Frame& frame, int i0, int i1, const Rows<const T>& rows, const double* seed, double* values, const Rows<T>& gradient,
                Arena& arena) const override;

 private:
  void fitting(const Frame& frame, int i0, int i1, const T* g1, double* energy, T* dg1, Arena& arena) const;

  const Prepared<T>& m_;
  const Kernels<T>& k_;
};

extern template class EnergyHead<double>;
extern template class EnergyHead<float>;

}  // namespace dpa2
