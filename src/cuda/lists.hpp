// Arguments of the kernels of lists.cu.
#pragma once

#include "cuda/search.hpp"

namespace dpa2 {
namespace cuda {

/// One list as it is written.
struct ListOut {
  int* start;     // (centres + 1) made before; zero where the search has failed
  int* j;         // (capacity) =
  int* centre;    // (capacity) =, or null
  int* incoming;  // (atoms) += edges that end at each atom, or null
};
static_assert(sizeof(ListOut) == 32, "host and kernel agree");

struct StoreArgs {
  ListOut master;
  ListOut repformer;
  int* three_start;      // (centres + 1) made before, or null: the model has no three-body block
  double* d;             // (capacity of master, 3) =
  double* r;             // (capacity of master) =
  SystemNotes* systems;  // (frames) the atom of the closest pair is noted
  const SearchStatus* notes;
  const int* j;              // (centres, capacity) of candidates.hpp
  const long long* code;     // (centres, capacity)
  const int* order;          // (centres, kept)
  const double* nearest;     // (centres)
  const double* wrapped;     // (atoms, 3)
  const int* ids;            // (atoms) or null
  const SearchInput* input;  // (frames)
  int capacity;
  int kept;
  int centres;
  int per_system;  // centres of one system
};
static_assert(sizeof(StoreArgs) == 176, "host and kernel agree");

/// One list by neighbour.
struct IncomingOut {
  int* items;        // (capacity) edges to each atom, in any order
  int* edges;        // (capacity) = ascending
  int* left;         // (atoms) how many, is used up
  const int* begin;  // (atoms + 1) made before
  const int* start;  // (centres + 1) of the list
  const int* j;      // (capacity) of the list
};
static_assert(sizeof(IncomingOut) == 48, "host and kernel agree");

struct IncomingArgs {
  IncomingOut master;
  IncomingOut repformer;
  int atoms;  // of all systems
  int centres;
};
static_assert(sizeof(IncomingArgs) == 104, "host and kernel agree");

struct FillArgs {
  IncomingArgs lists;
  SearchStatus* status;         // = notes
  SystemStatus* system_status;  // (frames) =
  const SearchStatus* notes;
  const SystemNotes* systems;  // (frames)
  const double* coords;        // (atoms, 3)
  const int* given;            // (atoms) types
  const int* ids;              // (atoms) or null
  int frames;
  int per_system;  // atoms of one system
};
static_assert(sizeof(FillArgs) == 168, "host and kernel agree");

}  // namespace cuda
}  // namespace dpa2
