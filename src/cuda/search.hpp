// What the kernels of the neighbour search and their host share: the lattice of a system as the host gives it, what the kernels
// note down, and what the host reads of it.
#pragma once

#include "math/portable.hpp"

namespace dpa2 {
namespace cuda {

/// The periodic cell of one system, made on the host from its box: reduced vectors (neighbors/lattice.hpp); open directions have unit
/// vectors orthogonal to the others.
struct SearchInput {
  double rows[9];     // (3, 3) reduced vectors, angstrom
  double inverse[9];  // (3, 3) of the rows: f = x inverse
  double heights[3];  // between opposite faces, angstrom
  double volume;      // angstrom^3
  int transform[9];   // (3, 3) reduced vector a = sum_b transform[a][b] * vector b of the box as given
  int periodic[3];    // 0 or 1
};
static_assert(sizeof(SearchInput) == 224, "fixed by what the host uploads");

/// Bins of one system, made by wrap_atoms.
struct SearchLayout {
  double origin[3];  // fractional coordinates that the bins begin at
  double scale[3];   // bins per unit of the fractional coordinates
  int bins[3];
  int reach[3];  // bins to either side that may hold a neighbour
};
static_assert(sizeof(SearchLayout) == 72, "an array of them lies on the device");

/// What the host learns of a search. Needed sizes are exact, except that a centre whose candidates do not fit counts with as many edges as
/// it can have at most.
struct SearchStatus {
  long long needed_master;     // edges of all centres
  long long needed_repformer;  //
  int needed_candidates;       // of the centre that has most, where they did not fit, else 0
  int wanted_bins;             // of the system that would like most; fewer cost time only
  int failed;                  // not 0: there are no lists
  int unused;
};
static_assert(sizeof(SearchStatus) == 32, "the host reads it as bytes");

/// What the host learns of one system. Rows are counted in the system; numbers of atoms are `ids` where there are any, else rows.
struct SystemStatus {
  double wrong_x[3];      // coordinates of the atom that cannot be used
  double closest_r;       // of the nearest pair that interacts, angstrom
  int wrong;              // one of the wrong_* below
  int wrong_atom;         // its number
  int wrong_type;         // and type
  int same_place[2];      // two atoms at distance 0, or -1
  int closest[2];         // the nearest pair, or -1
  int overflow_atom[3];   // with most neighbours beyond sel: repinit, three-body, repformer
  int overflow_count[3];  // how many it has; 0: none
  unsigned clamped;       // first_code(number) of those that math::least_weight makes take a table's energy; set later (pair_table.hpp)
  int clamped_count;      //
  int unused;
};
static_assert(sizeof(SystemStatus) == 96, "the host reads it as bytes");

constexpr int wrong_nothing = 0, wrong_type = 1, wrong_place = 2, wrong_far = 3;

/// Kept while kernels look: all zero at first, changed by atomicMax alone. What is looked for at least or first is noted as its complement.
struct SystemNotes {
  unsigned long long low[3];      // code of the least fractional coordinate in an open direction
  unsigned long long high[3];     //
  unsigned long long worst[3];    // count << 32 | first_code(number)
  unsigned long long same_place;  // first_code(number) << 32 | number of the other
  unsigned long long closest_r;   // complement of the bits of the least distance
  unsigned long long closest;     // first_code(number) << 32 | row, among those at that distance
  unsigned not_finite;            // first_code(row in the system)
  unsigned unknown_type;          //
  unsigned too_far;               //
  unsigned unused;
};
static_assert(sizeof(SystemNotes) == 112, "an array of them lies on the device");

/// Of numbers >= 0 the first has the largest code; 0 stands for none.
DPA2_MATH constexpr unsigned first_code(int number) { return 0x80000000u - static_cast<unsigned>(number); }
DPA2_MATH constexpr int first_number(unsigned code) { return static_cast<int>(0x80000000u - code); }

constexpr int search_threads = 128;                // of a block, one per atom or edge
constexpr int search_warps = search_threads / 32;  // centres of a block, where one warp has one centre
constexpr int shared_limit = 48 * 1024;            // bytes that every device gives a block
constexpr int image_limit_stored = 500000000;      // largest image number, with room for sums

}  // namespace cuda
}  // namespace dpa2
