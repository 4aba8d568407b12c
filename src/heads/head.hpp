// What is computed from the descriptors of atoms, each atom's from its own.
#pragma once

#include <vector>

#include "graph/descriptor.hpp"
#include "heads/output.hpp"

namespace dpa2 {

template <class T>
class Head {
 public:
  virtual ~Head() = default;
  [[nodiscard]] virtual std::vector<OutputSpec> outputs() const = 0;
  /// Numbers that it writes per atom.
  [[nodiscard]] virtual int width() const = 0;
  /// Whether it looks at the rotation matrix.
  [[nodiscard]] virtual bool rotation() const { return false; }

  /// values (nlocal, width): the rows of the centres i0..i1 =
  virtual void forward(const Frame& frame, int i0, int i1, const Rows<const T>& rows, double* values, Arena& arena) const = 0;
  /// Likewise, and gradient = that of sum_i seed_i . values_i with seed (nlocal, width), or null for ones.
  virtual void backward(const Frame& frame, int i0, int i1, const Rows<const T>& rows, const double* seed, double* values,
                        const Rows<T>& gradient, Arena& arena) const = 0;
};

}  // namespace dpa2
