// The atoms of a step and their neighbours, as models need them.
#ifndef DPA2_LAMMPS_LISTS_H
#define DPA2_LAMMPS_LISTS_H

#include <cstddef>
#include <vector>

#include "dpa2.hpp"
#include "part.h"

namespace LAMMPS_NS {
class NeighList;
}

namespace dpa2_lammps {

class Lists : public Part {
 public:
  using Part::Part;

  /// A run begins: units and atoms have to be such as models can take.
  void begin_run();
  /// The atoms of the step with a full list of LAMMPS; all processes come here together.
  ///   type_of   LAMMPS type -> type of the model, less than 0: takes no part
  ///   renewed   the list is not that of the last call
  ///   filled    LAMMPS makes the list; models on a GPU find neighbours themselves
  void gather(LAMMPS_NS::NeighList* list, const std::vector<int>& type_of, bool renewed, bool filled);
  /// (nall) `type_of` of every atom; -1 for those that a trial of Monte Carlo does without.
  void types_of_atoms(const std::vector<int>& type_of, std::vector<int>& types) const;

  [[nodiscard]] dpa2_domain* domain() const { return domain_.handle(); }
  [[nodiscard]] double angstrom() const { return angstrom_; }  ///< in LAMMPS's unit of length
  [[nodiscard]] const std::vector<int>& ids() const { return ids_; }
  [[nodiscard]] int first_type() const { return first_type_; }  ///< LAMMPS type of the first atom of the system
  [[nodiscard]] double memory_usage() const;

 private:
  using Taking = std::vector<int>;
  void find_absent_atoms();
  int first_type_of_all() const;
  void refuse_missing_pairs(const LAMMPS_NS::NeighList&, const Taking&) const;
  void complete(const LAMMPS_NS::NeighList&, const Taking&);

  dpa2::Domain domain_;
  double angstrom_ = 1.0;
  int first_type_ = 1;
  std::vector<double> coords_;  // (nall, 3) angstrom, where LAMMPS has another unit
  std::vector<int> ids_, numneigh_;
  std::vector<const int*> firstneigh_;
  // Lists with more neighbours than LAMMPS's: of which atom, and where in `completed_`.
  struct Completed {
    int atom, count;
    std::size_t first;
  };
  std::vector<Completed> completed_atoms_;
  std::vector<int> completed_;
  std::vector<char> absent_;  // (nall) or empty: atoms that a Monte Carlo fix tries to do without
};

}  // namespace dpa2_lammps

#endif
