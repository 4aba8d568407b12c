// Evaluators of pair tables, and of a network that a table is mixed into. Their calls are those of Evaluator.
#pragma once

#include <vector>

#include "heads/zbl.hpp"
#include "model/evaluate.hpp"

namespace dpa2 {

/// A pair table by itself: a part of a linear combination. Energies of its atoms need nobody else's, so there are no exchanges.
class TableEvaluator {
 public:
  explicit TableEvaluator(const FoldedPairTable& table) : table_(table) {}

  [[noreturn]] void descriptor(const Frame& frame, int threads, Exchange* exchange, const Outputs& out);
  void evaluate(const Frame& frame, int threads, Exchange* exchange, AtomVirial atom_virial, const Outputs& out);
  void vjp(const Frame& frame, int threads, Exchange* exchange, const Seeds& seeds, const Outputs& out);
  [[noreturn]] void hessian_product(const Frame& frame, int threads, double* product);
  static std::int64_t memory_estimate(const MemoryQuestion& q);
  void require(std::int64_t natoms, bool gradient, AtomVirial atom_virial);
  static Clamped clamped(const int*) { return {}; }
  static void remark(const Frame&, Remarks&) {}

 private:
  void gradient(const Frame& frame, int threads, const double* seed, bool deepmd, const Outputs& out);

  PairTable table_;
  Partition partition_;
  std::vector<double> energies_, seed_;
};

/// A network and a table (heads/zbl.hpp).
template <class T>
class ZblEvaluator {
 public:
  ZblEvaluator(const Config& network, const Prepared<T>& model, const FoldedPairTable& table, const FoldedShare& share)
      : network_(network, model), zbl_(table, share) {}

  void descriptor(const Frame& frame, int threads, Exchange* exchange, const Outputs& out) {
    network_.descriptor(frame, threads, exchange, out);
  }
  void evaluate(const Frame& frame, int threads, Exchange* exchange, AtomVirial atom_virial, const Outputs& out);
  void vjp(const Frame& frame, int threads, Exchange* exchange, const Seeds& seeds, const Outputs& out);
  /// Of the last evaluation, for a loss with the derivatives `seeds` by the atoms' energies, all (nlocal): how much the network's energies
  /// count, and how that changes along the frame's direction with the seeds' share added: the seeds of dual numbers (theory 15.2).
  void training_seeds(const Frame& frame, const double* seeds, double* values, double* tangents);
  [[noreturn]] void hessian_product(const Frame& frame, int threads, double* product);
  std::size_t bytes() { return network_.bytes(); }
  std::int64_t memory_estimate(const MemoryQuestion& q) const { return network_.memory_estimate(q); }
  void require(std::int64_t natoms, bool gradient, AtomVirial atom_virial) { network_.require(natoms, gradient, atom_virial); }
  /// Of the last evaluation; ids (nlocal): the numbers of atoms, null: rows.
  Clamped clamped(const int* ids) const { return zbl_.clamped(ids); }
  static void remark(const Frame&, Remarks&) {}

 private:
  void gradient(const Frame& frame, int threads, const double* weights, const double* network, bool deepmd, const Outputs& out);

  Evaluator<T> network_;
  Zbl zbl_;
  Partition pairs_;  ///< of a table that sees other pairs than the network
  std::vector<double> energies_;
};

extern template class ZblEvaluator<double>;
extern template class ZblEvaluator<float>;

}  // namespace dpa2
