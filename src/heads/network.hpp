// The fitting network of a head: from the descriptors of atoms to their coefficients, and back (theory 9.1, 9.5, 12.2).
#pragma once

#include "graph/descriptor.hpp"
#include "graph/gradients.hpp"

namespace dpa2 {

template <class T>
class HeadNetwork {
 public:
  using R = Real<T>;
  explicit HeadNetwork(const Prepared<R>& model) : m_(model), k_(kernels<T>()) {}

  /// Coefficients of an atom.
  [[nodiscard]] int width() const { return m_.fitting.width; }

  /// z (i1 - i0, width) = the coefficients of the centres i0..i1 with the features g1 (i1 - i0, n1); zero for atoms that do not count.
  /// Unless null, dg1 (i1 - i0, n1) = the gradient of sum_i seed_i . z_i with seed (i1 - i0, width), or null for ones, and weights +=
  /// those of the weights. Of dual numbers the seeds are the frame's weights with the tangents `seed`, null for 0; dg1 is wanted, z are the values.
  void run(const Frame& frame, int i0, int i1, const T* g1, const double* seed, double* z, T* dg1, const HeadGradient<R>* weights,
           Arena& arena) const;

 private:
  void input(const Frame& frame, int i0, int i1, const T* g1, T* x) const;
  T* output_seeds(const Frame& frame, int i0, int i1, const double* seed, Arena& arena) const;
  void vacuum(int count, Sum<T>* y0, T* dy, T* x, const FittingGradient<R>* weights, Arena& arena) const;

  const Prepared<R>& m_;
  const Kernels<T>& k_;
};

extern template class HeadNetwork<double>;
extern template class HeadNetwork<float>;
extern template class HeadNetwork<Dual<double>>;
extern template class HeadNetwork<Dual<float>>;

}  // namespace dpa2
