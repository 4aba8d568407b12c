// The list of a descriptor of one block in a hybrid one, cut from the list of the whole (theory 16.1).
//
// The slots of a centre are the neighbours in the order of the whole list, excluded ones among them. se_e2_a has slots for every type of
// neighbours, and the nearest of a type take them; dpa1 has slots for all. What lies beyond the cutoff, and pairs that the model
// excludes, are padding; pairs that the descriptor excludes take their slots and add nothing, not even padding.
#pragma once

#include <vector>

#include "neighbors/edges.hpp"

namespace dpa2 {

struct SeListSettings {
  Block block = Block::se_e2_a;
  double rcut = 0;            // angstrom
  int nsel = 0;               // slots in all
  std::vector<int> sel;       // (ntypes) slots for each type, or empty: for all together
  int kept = 0;               // of the whole list only so many slots are seen, 0: all
  double env_protection = 0;  // with 0 two coinciding atoms are an error
  int ntypes = 0;
  std::vector<char> pair_excluded, descr_excluded;  // as in NeighborSettings
};

struct SeLists {
  Edges edges;            // those that are stored: by types, and then by distance, of se_e2_a; without counts of other blocks
  std::vector<int> slot;  // (nedge) their numbers in the whole list
  std::vector<int> pads;  // (nlocal, ntypes) padded slots, by the type that they have
};

// whole: without exclusions. types (nall), ids (nall) or null as for NeighborBuilder; pad_type: that of padded slots of dpa1. Throws
// invalid_input for two atoms in one place.
void build_se_lists(const Edges& whole, const int* types, const int* ids, int pad_type, const SeListSettings& settings, int threads,
                    SeLists& out);

}  // namespace dpa2
