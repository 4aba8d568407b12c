// The part of a system that one process of a parallel program has: its atoms, ghosts of others, and the caller's neighbour lists.
#pragma once

#include <list>
#include <memory>
#include <vector>

#include "model/model.hpp"
#include "neighbors/edges.hpp"

namespace dpa2 {

/// Local atoms, then ghosts. Nothing is copied.
struct DomainAtoms {
  int nlocal = 0, nall = 0;
  const double* coords = nullptr;          ///< (nall, 3) angstrom
  const int* ids = nullptr;                ///< (nall) numbers that decide between equal distances and that messages name, or null: rows
  const int* numneigh = nullptr;           ///< (nlocal), or null: no lists, for models on a GPU
  const int* const* firstneigh = nullptr;  ///< (nlocal)[numneigh]: rows of all that may be within the cutoff, in any order
  int index_mask = -1;                     ///< what counts of an entry of firstneigh
};

/// What an evaluation needs besides; see Frame.
struct DomainFrame {
  const int* types = nullptr;  ///< (nall) of the model's type map, < 0 for atoms that take no part
  int pad_type = 0;
  const double *fparam = nullptr, *aparam = nullptr, *weights = nullptr;
  Exchange* exchange = nullptr;
  int threads = 1;
};

/// Evaluates models on the atoms of a domain. Models that want the same lists share them, and every model keeps a workspace
/// for the next step. A model on a GPU makes its own lists from the positions: whatever is within its cutoff is a neighbour. For one thread of the caller at a time.
class Domain {
 public:
  /// Rows of an atom, for messages: 2 of the domain of a spin model's network (model/spin.hpp).
  explicit Domain(int rows_of_atom = 1);
  ~Domain();
  Domain(const Domain&) = delete;
  Domain& operator=(const Domain&) = delete;

  /// The atoms of a step, which must stay where they are until the next call. Lists of the step before are forgotten.
  void set_atoms(const DomainAtoms& atoms);
  [[nodiscard]] const DomainAtoms& atoms() const noexcept { return atoms_; }
  /// For spin models: the spins (nall, 3) of the atoms that are set, which must stay where they are, too. Pairs of atoms up to `reach`
  /// (angstrom) from each other are in the lists, and ghosts as near as that are there.
  void set_spins(const double* spins, double reach);

  /// As those of Model; arrays of `out` have rows for ghosts where output.hpp says so.
  void evaluate(const std::shared_ptr<const Model>& model, const DomainFrame& frame, AtomVirial atom_virial, const Outputs& out,
                Remarks& remarks);
  void descriptor(const std::shared_ptr<const Model>& model, const DomainFrame& frame, const Outputs& out, Remarks& remarks);
  void vjp(const std::shared_ptr<const Model>& model, const DomainFrame& frame, const Seeds& seeds, const Outputs& out, Remarks& remarks);

 private:
  struct Lists {
    bool current = false;
    NeighborSettings settings;
    std::vector<int> types;
    NeighborBuilder builder;
    Edges edges;
  };
  struct Work {
    std::shared_ptr<const Model> model;       // outlives the evaluator
    std::unique_ptr<AnyEvaluator> evaluator;  // on the CPU
    std::unique_ptr<gpu::Engine> engine;      // on a GPU: domains wait for each other in exchanges, and must not share one
  };
  const Edges& lists(const NeighborSettings& settings, const DomainFrame& frame);
  void require_lists() const;
  void require_no_ghosts(const Edges& edges) const;
  Work& work(const std::shared_ptr<const Model>& model);
  void check_types(const Model& model, const DomainFrame& domain) const;
  static DomainFrame of_part(const LinearCombination::Part& part, const DomainFrame& domain, const int* types);
  template <class F>
  void run(const std::shared_ptr<const Model>& model, const DomainFrame& frame, Remarks& remarks, F f);
  void on_gpu(const std::shared_ptr<const Model>& model, const DomainFrame& frame, const gpu::Request& request, const Seeds& seeds,
              const Outputs& out, Remarks& remarks);
  struct Spins;
  void forget_spins() noexcept;
  template <class F>
  void with_virtual_atoms(const std::shared_ptr<const Model>& model, const DomainFrame& domain, F f);
  void evaluate_spins(const std::shared_ptr<const Model>& model, const DomainFrame& domain, AtomVirial atom_virial, const Outputs& out,
                      Remarks& remarks);
  void spin_descriptor(const std::shared_ptr<const Model>& model, const DomainFrame& domain, const Outputs& out, Remarks& remarks);

  const int rows_of_atom_;
  DomainAtoms atoms_;
  std::list<Lists> lists_;
  std::list<Work> work_;
  std::unique_ptr<Spins> spins_;
};

}  // namespace dpa2
