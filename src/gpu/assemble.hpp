// Forces, virials and totals, the last kernels of an evaluation; where the frame has failed, all of them are NaN (theory 9).
#pragma once

#include "cuda/assemble.hpp"
#include "gpu/frame.hpp"
#include "gpu/loader.hpp"
#include "gpu/queue.hpp"

namespace dpa2::gpu {

/// What is wanted; null: not wanted. Forces and virials are of one component of several, whose rows lie between the rows.
struct Results {
  double* force = nullptr;        ///< (atoms, [components], 3)
  double* virial = nullptr;       ///< (frames, [components], 9)
  double* atom_virial = nullptr;  ///< (atoms, [components], 9) half of each edge's share to either end
  int components = 1;
  double* energy = nullptr;       ///< (frames)
  double* atom_energy = nullptr;  ///< (centres) is read, and becomes NaN where the frame has failed
};

template <class T>
class Assemble {
 public:
  explicit Assemble(Loader& loader);

  /// gamma (master edges, 3): gradients of the edge vectors, or null where there are none.
  void run(Queue& queue, const Frame& frame, const T* gamma, const Results& results) const;

  /// wrapped (centres, 3) = the atoms in the boxes as they were given.
  void in_box(Queue& queue, const Frame& frame, const double* coords, const cuda::GivenBox* boxes, double* wrapped) const;
  /// seed (centres) = that coordinate: the weights of what atoms have whose gradient `deepmd` takes; times `weights`, unless null.
  void coordinate(Queue& queue, const Frame& frame, int axis, const double* wrapped, const double* weights, double* seed) const;
  /// Columns 3 k + axis of results.atom_virial as deepmd-kit defines it, from the gradients with these weights and without.
  void deepmd(Queue& queue, const Frame& frame, int axis, const double* wrapped, const T* seeded, const T* plain,
              const Results& results) const;

 private:
  Function assemble_, deepmd_, in_box_, coordinate_, totals_;
};

extern template class Assemble<float>;
extern template class Assemble<double>;

}  // namespace dpa2::gpu
