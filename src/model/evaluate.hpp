// A descriptor and the head on it: everything that a model says about a frame.
#pragma once

#include <cstddef>
#include <cstdint>

#include "graph/descriptor.hpp"
#include "heads/energy.hpp"
#include "heads/output.hpp"

namespace dpa2 {

/// The weights of a weighted sum of outputs; null: all zero. A rank without atoms also passes pointers where its peers do.
struct Seeds {
  const double* atom_energy = nullptr;  ///< (nlocal)
  const double* descriptor = nullptr;   ///< (nlocal, descriptor_dim)
  const double* rot_mat = nullptr;      ///< (nlocal, g2_dim, 3)
};

/// Evaluates one frame after the other with one workspace; one evaluator per thread of the caller, many on one model.
template <class T>
class Evaluator {
 public:
  explicit Evaluator(const Prepared<T>& model) : head_(model), descriptor_(model) {}

  /// Descriptor (and rotation matrix) only: no fitting, no backward.
  void descriptor(const Frame& frame, int threads, Exchange* exchange, const Outputs& out);
  /// Energies, and forces and virials where `out` asks for forces.
  void evaluate(const Frame& frame, int threads, Exchange* exchange, AtomVirial atom_virial, const Outputs& out);
  /// The sum of the outputs with these weights has a gradient: out's force = minus that with respect to the atoms' positions, its
  /// virial and atom_virial (AtomVirial::edge) likewise. The force must be asked for.
  void vjp(const Frame& frame, int threads, Exchange* exchange, const Seeds& seeds, const Outputs& out);

  /// What the head computes.
  [[nodiscard]] std::vector<OutputSpec> outputs() const { return head_.outputs(); }

  /// From the next evaluation on keeps pair features for the backward before every `layers`-th layer at most, and nothing to spare
  /// work, as an evaluation does by itself when memory is short (workspace.hpp). Results are the same bits.
  void keep_every(int layers) { descriptor_.save({layers, false}); }

  /// Bytes held by the workspace.
  std::size_t bytes() { return descriptor_.workspace().held(); }
  /// Bytes that a first evaluation like this takes (memory.hpp).
  std::int64_t memory_estimate(const MemoryQuestion& q) const {
    return dpa2::memory_estimate(descriptor_.model(), task(q.gradient, q.atom_virial), q);
  }
  /// Throws out_of_memory when the part of an evaluation that needs no neighbours does not fit; before anything is taken.
  void require(std::int64_t natoms, bool gradient, AtomVirial atom_virial) { descriptor_.require(natoms, task(gradient, atom_virial)); }

 private:
  Task task(bool gradient, AtomVirial atom_virial) const { return {gradient, atom_virial, head_.width()}; }
  void deepmd_virial(const Frame& frame, Exchange* exchange, double* out);

  EnergyHead<T> head_;
  Descriptor<T> descriptor_;
};

extern template class Evaluator<double>;
extern template class Evaluator<float>;

}  // namespace dpa2
