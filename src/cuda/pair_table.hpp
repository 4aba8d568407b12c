// Arguments of the kernels of pair tables: shared by host and kernels.
#pragma once

#include "cuda/search.hpp"

namespace dpa2 {
namespace cuda {

constexpr int pair_table_threads = 128;  ///< a warp per centre

/// A table and the edges that it is asked about.
struct PairTableArgs {
  const double* pieces;    // (ntypes, ntypes, nspline, 4) eV (math/pair_table.hpp)
  const double* bias;      // (ntypes) eV
  const double* d;         // (edges, 3)
  const double* r;         // (edges)
  const int* start;        // (centres + 1)
  const int* j;            // (edges)
  const int* given_types;  // (centres) < 0: virtual
  const int* types;        // (atoms) virtual atoms as type 0
  const int* failed;       // not 0: energies are NaN
  double rmin;             // angstrom; NaN where a pair is closer
  double step;
  double rcut;
  int nspline;
  int ntypes;
  int centres;
  int unused;
};
static_assert(sizeof(PairTableArgs) == 112, "fixed-width");

/// Half of the energies of an atom's pairs, and its type's bias; 0 for virtual atoms.
struct PairEnergiesArgs {
  double* energy;  // (centres) =
  PairTableArgs table;
};
static_assert(sizeof(PairEnergiesArgs) == 120, "fixed-width");

/// The energies of a network and of a table as one.
struct ZblArgs {
  double* energy;         // (centres) the network's; = the model's
  double* network;        // (centres) = its derivatives by the network's energy, or null with the next three
  double* pairs;          // (centres) = and by the table's
  double* distance;       // (centres) = and by the mean distance
  double* denominator;    // (centres) = of the mean distance, not bounded
  double* numerator;      // (centres) =
  SystemStatus* systems;  // (frames) atoms that are clamped are noted
  const int* ids;         // (centres) their numbers, or null: rows
  const double* bias;     // (ntypes) of the whole, eV
  const int* counted;     // (ntypes) 0: atoms without energy
  double rmin;            // angstrom: all table below
  double rmax;            // none of it above
  double alpha;
  PairTableArgs table;
  int per_frame;  // centres of a frame
  int unused;
};
static_assert(sizeof(ZblArgs) == 224, "fixed-width");

/// out = the weights of the network's energies in a sum of those of the model.
struct ZblSeedsArgs {
  double* out;            // (centres) =
  const double* network;  // (centres) of ZblArgs
  const double* seed;     // (centres)
  int centres;
  int unused;
};
static_assert(sizeof(ZblSeedsArgs) == 32, "fixed-width");

/// The gradient of sum_i seed_i energy_i through the table and the distances, by the vectors of the edges.
template <class T>
struct PairGradientArgs {
  T* gamma;                   // (edges, 3) = or +=
  const double* seed;         // (centres) or null: ones
  const double* pairs;        // (centres) of ZblArgs, or null with the next three: 1, for a table alone
  const double* distance;     // (centres)
  const double* denominator;  // (centres)
  const double* numerator;    // (centres)
  PairTableArgs table;
  double alpha;
  int accumulate;  // 1: +=
  int unused;
};
static_assert(sizeof(PairGradientArgs<float>) == 176 && sizeof(PairGradientArgs<double>) == 176, "fixed-width");

}  // namespace cuda
}  // namespace dpa2
