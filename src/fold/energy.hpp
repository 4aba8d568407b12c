// What the energies of the atoms of a type begin with (theory 9.1).
#pragma once

#include <string>

#include "fold/matrix.hpp"

namespace dpa2 {

struct FoldedEnergy {
  Matrix bias;          ///< (1, ntypes): bias_atom_e + out_bias, eV
  Matrix counted;       ///< (1, ntypes): 0 for types whose atoms have no energy, else 1
  bool vacuum = false;  ///< whether the network's value without a descriptor is subtracted

  template <class F>
  void for_each(const std::string& at, F& f) const {
    give(f, at + ".bias", bias);
    give(f, at + ".counted", counted);
    f(at + ".vacuum", static_cast<int>(vacuum));
  }
};

FoldedEnergy fold_energy(const Config& config, RawTensors& raw);

}  // namespace dpa2
