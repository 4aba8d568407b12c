// Energies of pairs of atoms by their distance from a table, and the switch from a table to a network (theory 9.7, 9.8).
#pragma once

#include "math/portable.hpp"

namespace dpa2 {
namespace math {

/// Coefficients of a piece: of f^3, f^2, f and 1, with f from 0 to 1 along the piece.
constexpr int pair_table_terms = 4;

/// A table of all pairs of types; pieces of one length from rmin on.
struct PairGrid {
  double rmin, step, rcut;  // angstrom
  int nspline;

  /// Whether a pair at r has an energy at all: the table may end before its cutoff.
  DPA2_MATH bool reaches(double r) const { return r < rcut && r < rmin + step * nspline; }
  /// The piece of r >= rmin and how far along, 0 to 1.
  DPA2_MATH int piece(double r, double& along) const {
    const double q = (r - rmin) / step;
    const int k = static_cast<int>(q);
    along = q - k;
    return k < nspline ? k : nspline - 1;
  }
};

/// Energy of a pair (eV) and its derivative by the distance; c: the four coefficients of the piece.
DPA2_MATH void pair_energy(const double* c, double along, double step, double& energy, double& slope) {
  energy = ((c[0] * along + c[1]) * along + c[2]) * along + c[3];
  slope = ((3 * c[0] * along + 2 * c[1]) * along + c[2]) / step;
}

/// The least denominator of the average of distances. Where the nearest neighbour is farther than alpha times 46 it acts: the average
/// falls to 0, and the atom gets the table's energy.
constexpr double least_weight = 1e-20;

/// The share w of the table in the energy of an atom whose distances average to sigma, and dw/dsigma. sigma is exactly 0 for an atom
/// without neighbours: no table.
DPA2_MATH void table_share(double sigma, double rmin, double rmax, double& w, double& slope) {
  slope = 0;
  if (sigma == 0 || sigma >= rmax) {
    w = 0;
  } else if (sigma < rmin) {
    w = 1;
  } else {
    const double v = (sigma - rmin) / (rmax - rmin);
    w = v * v * v * (-6 * v * v + 15 * v - 10) + 1;
    slope = -30 * v * v * (1 - v) * (1 - v) / (rmax - rmin);
  }
}

}  // namespace math
}  // namespace dpa2
