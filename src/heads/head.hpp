// What is computed from the descriptors of atoms, each atom's from its own.
#pragma once

#include "graph/descriptor.hpp"
#include "graph/gradients.hpp"

namespace dpa2 {

template <class T>
class Head {
 public:
  virtual ~Head() = default;
  /// Numbers that it writes per atom.
  [[nodiscard]] virtual int width() const = 0;
  /// Whether it looks at the rotation matrix.
  [[nodiscard]] virtual bool rotation() const { return false; }

  /// values (i1 - i0, width) = those of the centres i0..i1, whose descriptors are `rows`; zero for atoms that do not count.
  virtual void forward(const Frame& frame, int i0, int i1, const Rows<const T>& rows, double* values, Arena& arena) const = 0;
  /// Likewise, and gradient = that of sum_i seed_i . values_i with seed (i1 - i0, width), or null for ones. One with respect to the
  /// rotation matrix is only written if it looks at it. Unless null, weights += the gradients of the network's weights. Of dual
  /// numbers the seeds are the frame's weights with the tangents `seed`, null for 0.
  virtual void backward(const Frame& frame, int i0, int i1, const Rows<const T>& rows, const double* seed, double* values,
                        const Rows<T>& gradient, const HeadGradient<Real<T>>* weights, Arena& arena) const = 0;
};

}  // namespace dpa2
