// Arguments of the kernels of bins.cu. Blocks belong to one system each: `blocks` of them to every system.
#pragma once

#include "cuda/search.hpp"

namespace dpa2 {
namespace cuda {

struct ExtentArgs {
  SystemNotes* systems;      // (frames) low and high are noted
  const double* coords;      // (atoms, 3)
  const int* given;          // (atoms) types
  const SearchInput* input;  // (frames)
  int atoms;                 // of one system
  int blocks;                // of one system
  int ntypes;
  int unused;
};
static_assert(sizeof(ExtentArgs) == 48, "host and kernel agree");

struct WrapArgs {
  double* wrapped;           // (atoms, 3) = x - shift box
  int* shift;                // (atoms, 3) =
  int* bin;                  // (atoms) = number of the bin among those of all systems, -1 for atoms that take no part
  int* count;                // (frames, bins) += atoms of each bin
  int* types;                // (atoms) = types, 0 for atoms that take no part
  int* pad_types;            // (frames) = that of the first atom
  SearchLayout* layout;      // (frames) =
  SearchStatus* notes;       // wanted_bins and failed are noted
  SystemNotes* systems;      // (frames) atoms that cannot be used are noted
  const double* coords;      // (atoms, 3)
  const int* given;          // (atoms) types, < 0: virtual
  const SearchInput* input;  // (frames)
  double radius;             // angstrom
  int atoms;                 // of one system
  int blocks;                // of one system
  int bins;                  // room for bins of one system
  int ntypes;
};
static_assert(sizeof(WrapArgs) == 120, "host and kernel agree");

struct FillBinsArgs {
  int* sorted;       // (atoms) = atoms by bin, those of a bin in any order
  int* left;         // (all bins) how many, is used up
  const int* bin;    // (atoms)
  const int* start;  // (all bins + 1)
  int atoms;         // of all systems
  int unused;
};
static_assert(sizeof(FillBinsArgs) == 40, "host and kernel agree");

}  // namespace cuda
}  // namespace dpa2
