// Arguments of the kernel of candidates.cu, and how many centres a block has.
#pragma once

#include "cuda/search.hpp"

namespace dpa2 {
namespace cuda {

struct CandidateArgs {
  int* stored;                  // (centres) = edges of the centre
  int* three;                   // (centres) = those of the three-body list, the first ones
  int* repformer;               // (centres) = those of the repformer's list
  int* pad_repinit;             // (centres) = padded slots
  int* pad_three;               // (centres) =
  double* nearest;              // (centres) = distance of the first edge, where there is one
  int* j;                       // (centres, capacity) candidates: atom
  long long* code;              // (centres, capacity) image
  int* order;                   // (centres, kept) candidates that are stored
  unsigned long long* keys;     // (centres, capacity), or null: they are in shared memory
  SearchStatus* notes;          // needed_candidates and failed are noted
  SystemNotes* systems;         // (frames) overflow, closest_r and atoms at the same place are noted
  const SearchInput* input;     // (frames)
  const SearchLayout* layout;   // (frames)
  const double* wrapped;        // (atoms, 3)
  const int* shift;             // (atoms, 3)
  const int* bin;               // (atoms)
  const int* first;             // (all bins + 1) atoms of each bin
  const int* sorted;            // (atoms) by bin
  const int* types;             // (atoms) >= 0
  const int* ids;               // (atoms), or null: rows
  const signed char* excluded;  // (ntypes, ntypes) 1 by the model + 2 by the descriptor, or null
  double radius;                // angstrom, with the tolerance
  double tolerance;             // angstrom: closer distances are equal up to rounding
  double repformer_rcut;        // angstrom
  double three_rcut;            // angstrom
  double scale;                 // of the keys, see key_scale()
  int index_bits;               // of the keys
  int capacity;                 // candidates of a centre
  int kept;                     // at least min(capacity, most)
  int most;                     // edges of a centre
  int nsel;                     // of repinit, which the slots without an edge are counted to
  int repformer_nsel;
  int three_nsel;
  int use_three;
  int coincide;  // not 0: atoms at the same place are an error
  int ntypes;
  int centres;
  int per_system;  // centres of one system
  int bins;        // room for bins of one system
  int unused;
};
static_assert(sizeof(CandidateArgs) == 272, "host and kernel agree");

/// A key is a distance in units of 1 / scale, and below it `index_bits` of the number of the candidate: all different, and sorted in one
/// go.
DPA2_MATH constexpr int key_index_bits(int capacity) {
  int bits = 1;
  while (bits < 31 && 1LL << bits < capacity) ++bits;
  return bits;
}
/// A power of two, so that no distance is rounded but where digits do not fit: 10^-14 angstrom for 2,000 candidates within 9 angstrom.
DPA2_MATH constexpr double key_scale(double radius, int capacity) {
  double scale = 1.0;
  for (int k = 0; k < 62 - key_index_bits(capacity); ++k) scale *= 2.0;
  for (double reach = 1.0; reach <= radius; reach *= 2.0) scale *= 0.5;
  return scale;
}

/// Centres of a block whose keys fit into shared memory; 0: not even those of one.
DPA2_MATH constexpr int candidate_warps(int capacity) {
  const long long fit = shared_limit / (8LL * capacity);
  return fit >= search_warps ? search_warps : fit >= 2 ? 2 : static_cast<int>(fit);
}

}  // namespace cuda
}  // namespace dpa2
