// Linear combinations: the weighted sum of the energies of several models, each with lists of its own.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "gpu/engine.hpp"
#include "heads/output.hpp"
#include "neighbors/edges.hpp"
#include "schema/config.hpp"
#include "schema/weights.hpp"

namespace dpa2 {

class Model;
struct Seeds;

class LinearCombination {
 public:
  struct Part {
    std::shared_ptr<const Model> model;
    double weight = 1;
    std::vector<int> types;  ///< of the combination -> of the part
  };
  /// Arguments as for Model.
  LinearCombination(const Config& config, Weights weights, const std::string& precision, double skin, const std::string& device,
                    const gpu::Hooks& hooks);
  ~LinearCombination();

  [[nodiscard]] const std::vector<Part>& parts() const noexcept { return parts_; }
  /// The first one with a descriptor.
  [[nodiscard]] const Part& base() const noexcept { return parts_[base_]; }
  /// (n): types of atoms as the part numbers them.
  static std::vector<int> types_of(const Part& part, const int* types, int n);

  /// Evaluates one part: its types (nall), the weights (nlocal) of its atoms' energies in the sum, where its results go.
  using Evaluate = std::function<void(const Part&, const int* types, const double* weights, const Outputs& out, Remarks&)>;
  /// Energies, forces and virials of the whole. weights (nlocal): as for Frame.
  void evaluate(int nlocal, int nall, const int* types, const double* weights, const Outputs& out, Remarks& remarks,
                const Evaluate& of_part) const;
  using Vjp = std::function<void(const Part&, const int* types, const Seeds&, const Outputs& out, Remarks&)>;
  void vjp(int nlocal, int nall, const int* types, const Seeds& seeds, const Outputs& out, Remarks& remarks, const Vjp& of_part) const;

 private:
  struct Work;
  struct Pool;
  /// The share of an atom in the sum.
  [[nodiscard]] double factor(const Part& part, int type, double weight) const;

  std::vector<Part> parts_;
  std::size_t base_ = 0;
  std::vector<double> bias_;  ///< (ntypes) eV
  std::vector<char> counted_;
  std::unique_ptr<Pool> pool_;
};

}  // namespace dpa2
