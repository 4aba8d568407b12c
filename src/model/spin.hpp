// Spin models: an energy model that sees spins as virtual atoms, displaced from their own by so much per unit of spin (theory 9.9).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "graph/memory.hpp"
#include "heads/output.hpp"
#include "neighbors/edges.hpp"
#include "schema/config.hpp"
#include "schema/weights.hpp"

namespace dpa2 {

class Model;
struct Structure;

/// What is said where the gradient of a weighted sum is asked for.
inline constexpr const char* no_weighted_sums =
    "a spin model has no gradients of weighted sums: its energies depend on spins as well as on coordinates; its forces are there";

/// Of the rows of the network 2 i is atom i, and 2 i + 1 its virtual atom: (2 n, width) numbers are (n, 2 width) of atoms.
class SpinModel {
 public:
  SpinModel(const Config& config, Weights weights, const std::string& precision, double skin);
  ~SpinModel();

  [[nodiscard]] const std::shared_ptr<const Model>& network() const noexcept { return network_; }
  /// Angstrom per unit of spin, by types; 0: no spins.
  [[nodiscard]] const std::vector<double>& scales() const noexcept { return scales_; }

  /// The largest distance of a virtual atom from its own, angstrom. Throws invalid_input for spins that are not finite.
  [[nodiscard]] double longest_shift(int natoms, const int* types, const double* spins) const;

  struct Rows {
    std::vector<int> types;      ///< (2 n)
    std::vector<double> coords;  ///< (2 n, 3)
    std::vector<double> shifts;  ///< (n, 3): from the atoms to their virtual ones
    double longest_shift = 0;    ///< angstrom, and whose it is
    int longest = 0;
  };
  /// The atoms (natoms) with their virtual ones. Throws invalid_input, naming atoms as check_atoms does, for what cannot be evaluated.
  void expand(int natoms, const double* coords, const int* types, const double* spins, const int* ids, Rows& rows) const;
  /// (2 n, width): those of virtual atoms are zero; null for null.
  static const double* expand_parameters(int n, int width, const double* aparam, std::vector<double>& memory);

  /// f(own, remarks) evaluates the network on the rows of nall atoms, nlocal of them centres, and fills `own`; `out` is made of that.
  using Evaluate = std::function<void(const Outputs& own, Remarks& remarks)>;
  void evaluate(int nlocal, int nall, const Rows& rows, const Outputs& out, Remarks& remarks, const Evaluate& f) const;
  void descriptor(int nlocal, const Outputs& out, Remarks& remarks, const Evaluate& f) const;
  /// Whole systems.
  void evaluate(const Structure& structure, AtomVirial atom_virial, int threads, const Outputs& out, Remarks& remarks) const;
  void descriptor(const Structure& structure, int threads, const Outputs& out, Remarks& remarks) const;

  /// As that of Model.
  [[nodiscard]] std::int64_t memory_estimate(std::int64_t natoms, double neighbors, bool gradient, AtomVirial atom_virial,
                                             int threads) const;

 private:
  struct Work;
  struct Pool;

  std::shared_ptr<const Model> network_;
  std::vector<double> scales_;
  std::unique_ptr<Pool> pool_;
};

}  // namespace dpa2
