// The fitting network of a head: from the descriptors of atoms to their coefficients, and back (theory 9.1, 9.5, 12.2).
#pragma once

#include "graph/descriptor.hpp"

namespace dpa2 {

template <class T>
class HeadNetwork {
 public:
  explicit HeadNetwork(const Prepared<T>& model) : m_(model) {}

  /// Coefficients of an atom.
  [[nodiscard]] int width() const { return m_.fitting.width; }

  /// z (i1 - i0, width) = the coefficients of the centres i0..i1 with the features g1 (i1 - i0, n1); zero for atoms that do not count.
  /// Unless null, dg1 (i1 - i0, n1) = the gradient of sum_i seed_i . z_i with seed (i1 - i0, width), or null for ones.
  void run(const Frame& frame, int i0, int i1, const T* g1, const double* seed, double* z, T* dg1, Arena& arena) const;

 private:
  void input(const Frame& frame, int i0, int i1, const T* g1, T* x) const;
  const T* output_seeds(const Frame& frame, int i0, int i1, const double* seed, Arena& arena) const;

  const Prepared<T>& m_;
};

extern template class HeadNetwork<double>;
extern template class HeadNetwork<float>;

}  // namespace dpa2
