// A descriptor and the head on it: everything that a model says about a frame.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "graph/descriptor.hpp"
#include "graph/hybrid.hpp"
#include "heads/kinds.hpp"
#include "heads/output.hpp"

namespace dpa2 {

/// The weights of a weighted sum of outputs; null: all zero. A rank without atoms also passes pointers where its peers do.
struct Seeds {
  const double* head = nullptr;        ///< (nlocal, width): of what the head gives for an atom (atom_output), energies for example
  const double* descriptor = nullptr;  ///< (nlocal, descriptor_dim)
  const double* rot_mat = nullptr;     ///< (nlocal, g2_dim, 3)
};

/// Evaluates one frame after the other with one workspace; one evaluator per thread of the caller, many on one model. D: what the
/// descriptor is, Descriptor or HybridDescriptor.
template <class T, template <class> class D = Descriptor>
class Evaluator {
 public:
  /// Of a network: the configuration is none of a combination.
  Evaluator(const Config& config, const typename D<T>::Model& model)
      : outputs_(head_outputs(config)),
        quantities_(quantities_with_forces(outputs_)),
        descriptor_(model),
        head_(make_head(config, descriptor_.model())) {}

  /// Descriptor (and rotation matrix) only: no fitting, no backward.
  void descriptor(const Frame& frame, int threads, Exchange* exchange, const Outputs& out);
  /// What the head computes, and forces and virials where `out` asks for forces and the model has them. Forces and virials are those
  /// of the sum that the frame's weights say; values are what they are without weights.
  void evaluate(const Frame& frame, int threads, Exchange* exchange, AtomVirial atom_virial, const Outputs& out);
  /// The sum of the outputs with these weights has a gradient: out's force = minus that with respect to the atoms' positions, its
  /// virial and atom_virial (AtomVirial::edge) likewise. The force must be asked for.
  void vjp(const Frame& frame, int threads, Exchange* exchange, const Seeds& seeds, const Outputs& out);

  /// Of energies: product (nlocal, 3) = the Hessian of their sum times the frame's velocities (theory 15.6).
  void hessian_product(const Frame& frame, int threads, double* product);

  /// What the head computes.
  [[nodiscard]] const std::vector<OutputSpec>& outputs() const noexcept { return outputs_; }

  /// From the next evaluation on keeps pair features for the backward before every `layers`-th layer at most, and nothing to spare
  /// work, as an evaluation does by itself when memory is short (workspace.hpp). Results are the same bits.
  void keep_every(int layers) { descriptor_.save({layers, false}); }

  /// Of the last evaluation: how the centres were shared out, and what the head gave for the atoms, (nlocal, width).
  const Partition& partition() { return descriptor_.workspace().partition; }
  const double* values() { return descriptor_.workspace().values.data(); }
  [[nodiscard]] static Clamped clamped(const int*) { return {}; }
  /// Of the last evaluation: what there is to say about the lists of a hybrid descriptor, in place of what the frame's have said.
  void remark(const Frame& frame, Remarks& remarks) const { descriptor_.remark(frame, remarks); }

  /// Bytes held by the workspace.
  std::size_t bytes() { return descriptor_.bytes(); }
  /// Bytes that a first evaluation like this takes (memory.hpp).
  std::int64_t memory_estimate(const MemoryQuestion& q) const {
    MemoryQuestion own = q;
    own.gradient = q.gradient && quantities_ > 0;
    own.values = head_->width();
    own.quantities = quantities_;
    return descriptor_.memory_estimate(task(own.gradient, q.atom_virial), own);
  }
  /// Throws out_of_memory when the part of an evaluation that needs no neighbours does not fit; before anything is taken.
  void require(std::int64_t natoms, bool gradient, AtomVirial atom_virial) { descriptor_.require(natoms, task(gradient, atom_virial)); }

 private:
  [[nodiscard]] Task task(bool gradient, AtomVirial atom_virial) const { return {gradient, atom_virial, head_->width()}; }
  void write_values(const Frame& frame, const Outputs& out);
  void deepmd_virial(const Frame& frame, Exchange* exchange, int quantity, double* out);

  std::vector<OutputSpec> outputs_;
  int quantities_;
  D<T> descriptor_;
  std::unique_ptr<Head<T>> head_;
  std::unique_ptr<D<Dual<T>>> dual_;  ///< of the first Hessian that is asked for
};

extern template class Evaluator<double>;
extern template class Evaluator<float>;
extern template class Evaluator<double, HybridDescriptor>;
extern template class Evaluator<float, HybridDescriptor>;

}  // namespace dpa2
