// The spins of atom_style spin, as models take them.
#ifndef DPA2_LAMMPS_SPINS_H
#define DPA2_LAMMPS_SPINS_H

#include <string>
#include <vector>

#include "dpa2.h"
#include "model.h"
#include "part.h"

namespace dpa2_lammps {

class Spins : public Part {
 public:
  using Part::Part;

  /// A run begins: atoms have to have spins, in units that LAMMPS's package SPIN has. A warning for atoms of magnetic types
  /// that have none.
  void begin_run(const Model&);
  /// How far lists have to reach for the spins that the atoms of all processes have now, angstrom.
  [[nodiscard]] double reach(const Model&) const;
  /// The spins of the atoms that are set in a domain, whose lists reach so far.
  void gather(dpa2_domain*, double reached);
  /// Adds the (nall, 3) magnetic forces of the first `n` atoms, eV per unit of spin, to LAMMPS's, which are frequencies.
  void add(const std::vector<double>& magnetic_forces, double factor, int n) const;

 private:
  void warn_of_missing(const Model&);

  std::vector<double> spins_;  // (nall, 3)
  std::string said_;           // the last warning, not to repeat it
};

}  // namespace dpa2_lammps

#endif
