// What becomes of the numbers that the fitting network gives for an atom (theory 9.1, 9.5, 9.6).
#pragma once

#include <string>

#include "fold/matrix.hpp"

namespace dpa2 {

/// An atom's coefficients are the network's numbers * scale + bias; of the kinds without a rotation matrix they are its outputs.
struct FoldedHead {
  Matrix bias;          ///< (ntypes, width)
  Matrix scale;         ///< (ntypes, width), or empty: ones
  Matrix shift;         ///< (1, ntypes): what the diagonal of an atom's polarizability gets besides, or empty: nothing
  Matrix counted;       ///< (1, ntypes): 0 for types whose atoms have no output, else 1
  bool vacuum = false;  ///< whether the network's numbers without a descriptor are subtracted

  template <class F>
  void for_each(const std::string& at, F& f) const {
    give(f, at + ".bias", bias);
    give(f, at + ".scale", scale);
    give(f, at + ".shift", shift);
    give(f, at + ".counted", counted);
    f(at + ".vacuum", static_cast<int>(vacuum));
  }
};

FoldedHead fold_head(const Config& config, RawTensors& raw);

}  // namespace dpa2
