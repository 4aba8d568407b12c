// Atoms and neighbour lists as the kernels see them. All pointers are of the device. How many edges there are, only the device
// knows: start[centres] of a list; arrays of edges have room for `capacity`, and grids over edges are made for that.
#pragma once

#include "cuda/search.hpp"

namespace dpa2::gpu {

/// The edges of one block of the model, numbered through by centre, nearest first: those of centre i are start[i]..start[i + 1].
struct List {
  const int* start = nullptr;   ///< (centres + 1)
  const int* j = nullptr;       ///< (capacity) row of the neighbour
  const int* centre = nullptr;  ///< (capacity) or null
  int capacity = 0;             ///< of all centres together
  int most = 0;                 ///< no centre has more: sel of the block
};

/// The edges of a list by neighbour: those to atom j are edges[begin[j]..begin[j + 1]], ascending.
struct Incoming {
  const int* begin = nullptr;  ///< (atoms + 1)
  const int* edges = nullptr;  ///< (capacity)
};

/// One system, or several of one size side by side: rows f * centres / frames... are of system f (with more than one there are no ghosts).
struct Frame {
  int centres = 0;  ///< rows with lists and outputs; the first ones
  int atoms = 0;    ///< with ghosts: rows that may be neighbours
  int frames = 1;
  const int* types = nullptr;        ///< (atoms), virtual atoms as type 0
  const int* given_types = nullptr;  ///< (atoms), virtual atoms < 0
  const int* pad_types = nullptr;    ///< (frames) the type of padded slots: that of the system's first atom, virtual as type 0
  const double* d = nullptr;         ///< (master capacity, 3) x_j + image - x_i, angstrom
  const double* r = nullptr;         ///< (master capacity)
  const double* wrapped = nullptr;   ///< (atoms, 3) coordinates in the cell
  List master;                       ///< repinit's; it has centres where SearchBuffers asks for them
  List repformer;                    ///< the first edges of every centre of the master list
  List three;                        ///< likewise, its start alone; only where the model has it
  Incoming incoming;                 ///< of the master list
  Incoming repformer_incoming;
  const int* pad_repinit = nullptr;       ///< (centres) padded slots
  const int* pad_three = nullptr;         ///< (centres)
  const int* ids = nullptr;               ///< (atoms) numbers that messages name, or null: rows of the system
  cuda::SystemStatus* systems = nullptr;  ///< (frames) for what later kernels have to tell the host
  const int* failed = nullptr;  ///< not 0: this evaluation is void (atoms that cannot be used, lists that did not fit); results become NaN
};

}  // namespace dpa2::gpu
