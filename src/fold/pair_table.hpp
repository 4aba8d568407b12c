// Pair tables, and what mixes one with a network (theory 9.7, 9.8).
#pragma once

#include <string>

#include "fold/matrix.hpp"
#include "math/pair_table.hpp"
#include "schema/config.hpp"

namespace dpa2 {

struct FoldedPairTable {
  math::PairGrid grid;
  Matrix pieces;  ///< (ntypes * ntypes * nspline, 4): eV, of the powers 3, 2, 1, 0 of the way along a piece
  Matrix bias;    ///< (1, ntypes) eV

  template <class F>
  void for_each(const std::string& at, F& f) const {
    f(at + ".rmin", grid.rmin);
    f(at + ".step", grid.step);
    f(at + ".rcut", grid.rcut);
    f(at + ".nspline", grid.nspline);
    f(at + ".pieces", pieces);
    f(at + ".bias", bias);
  }
};

/// How much of an atom's energy comes from the table.
struct FoldedShare {
  double rmin = 0, rmax = 0, alpha = 0;  ///< angstrom: of the switch, and of the average of distances
  Matrix bias, counted;                  ///< (1, ntypes) of the whole model: eV; 0 for types without energy

  template <class F>
  void for_each(const std::string& at, F& f) const {
    f(at + ".rmin", rmin);
    f(at + ".rmax", rmax);
    f(at + ".alpha", alpha);
    f(at + ".bias", bias);
    f(at + ".counted", counted);
  }
};

/// `config` is that of the table. Names are those of the part.
FoldedPairTable fold_pair_table(const Config& config, RawTensors& raw);
/// `config` is that of a zbl model.
FoldedShare fold_share(const Config& config, RawTensors& raw);
/// (1, ntypes): 1, or 0 for types that the model excludes.
Matrix fold_counted(const Config& config);

}  // namespace dpa2
