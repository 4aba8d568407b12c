// The neighbour lists in their final form, the same by neighbour, and what there is to say about them.
//
// Where the search has failed all lists are empty, so that no kernel after it reads what is not there.
#include "cuda/lists.hpp"

#include "cuda/search.cuh"

using namespace dpa2;
using namespace dpa2::neighbors;

namespace dpa2 {
namespace neighbors {

__device__ __forceinline__ void clear_starts(int* start, int i, int centres) {
  if (start == nullptr) return;
  const int last = i == centres - 1 ? centres : i;
  for (int k = i; k <= last; ++k) start[k] = 0;
}

__device__ __forceinline__ void store_edge(const cuda::ListOut& list, int e, int i, int j) {
  list.j[e] = j;
  if (list.centre != nullptr) list.centre[e] = i;
  if (list.incoming != nullptr) atomicAdd(list.incoming + j, 1);
}

__device__ __forceinline__ void fill(const cuda::IncomingOut& list, int e, int centres) {
  if (e >= list.start[centres]) return;
  const int to = list.j[e];
  list.items[list.begin[to] + atomicSub(list.left + to, 1) - 1] = e;
}

/// One warp: the edges to an atom in ascending order.
__device__ __forceinline__ void sort_edges(const cuda::IncomingOut& list, int atom) {
  const int begin = list.begin[atom], end = list.begin[atom + 1];
  for (int k = begin + lane_number(); k < end; k += 32) {
    const int item = list.items[k];
    int rank = begin;
    for (int other = begin; other < end; ++other) rank += list.items[other] < item ? 1 : 0;
    list.edges[rank] = item;
  }
}

__device__ __forceinline__ int high_word(unsigned long long v) { return static_cast<int>(v >> 32); }
__device__ __forceinline__ int first_of_high_word(unsigned long long v) { return cuda::first_number(static_cast<unsigned>(v >> 32)); }
__device__ __forceinline__ int low_word(unsigned long long v) { return static_cast<int>(v & 0xffffffffu); }

/// The first atom that cannot be used, in the order in which the CPU looks (check_atoms, then the distance from the cell): which, and why.
__device__ __forceinline__ int wrong_row(const cuda::SystemNotes& notes, int& why) {
  why = cuda::wrong_nothing;
  unsigned code = 0;
  if (notes.unknown_type != 0 && notes.unknown_type >= notes.not_finite) {
    why = cuda::wrong_type;
    code = notes.unknown_type;
  } else if (notes.not_finite != 0) {
    why = cuda::wrong_place;
    code = notes.not_finite;
  } else if (notes.too_far != 0) {
    why = cuda::wrong_far;
    code = notes.too_far;
  }
  return why != cuda::wrong_nothing ? cuda::first_number(code) : -1;
}

/// What the host learns of system f.
__device__ __forceinline__ void report_system(const cuda::FillArgs& a, int f) {
  const cuda::SystemNotes& notes = a.systems[f];
  cuda::SystemStatus to;
  const int first_row = f * a.per_system, row = wrong_row(notes, to.wrong);
  const bool any = row >= 0;
  to.wrong_atom = any ? number_of(a.ids, first_row + row, first_row) : -1;
  to.wrong_type = any ? a.given[first_row + row] : 0;
#pragma unroll
  for (int c = 0; c < 3; ++c) to.wrong_x[c] = any ? a.coords[3LL * (first_row + row) + c] : 0.0;
  const bool same = notes.same_place != 0;
  to.same_place[0] = same ? first_of_high_word(notes.same_place) : -1;
  to.same_place[1] = same ? low_word(notes.same_place) : -1;
#pragma unroll
  for (int block = 0; block < 3; ++block) {
    const unsigned long long worst = notes.worst[block];
    to.overflow_count[block] = high_word(worst);
    to.overflow_atom[block] = worst != 0 ? cuda::first_number(static_cast<unsigned>(worst & 0xffffffffu)) : -1;
  }
  const bool pair = notes.closest != 0;
  to.closest_r = pair ? __longlong_as_double(static_cast<long long>(~notes.closest_r)) : 0.0;
  to.closest[0] = pair ? first_of_high_word(notes.closest) : -1;
  to.closest[1] = -1;
  if (pair) {
    const cuda::IncomingOut& master = a.lists.master;
    to.closest[1] = number_of(a.ids, master.j[master.start[low_word(notes.closest)]], first_row);
  }
  to.clamped = 0;
  to.clamped_count = 0;
  to.unused = 0;
  a.system_status[f] = to;
}

}  // namespace neighbors
}  // namespace dpa2

// One warp per centre: its edges, from what find_neighbors has left.
extern "C" __global__ void __launch_bounds__(128) store_lists(const cuda::StoreArgs a) {
  const int i = row_of_warp(), lane = lane_number();
  if (i >= a.centres) return;
  if (a.notes->failed != 0) {
    if (lane == 0) {
      clear_starts(a.master.start, i, a.centres);
      clear_starts(a.repformer.start, i, a.centres);
      clear_starts(a.three_start, i, a.centres);
    }
    return;
  }
  const int f = i / a.per_system, first = a.master.start[i], n = a.master.start[i + 1] - first;
  const int rep = a.repformer.start[i], nrep = a.repformer.start[i + 1] - rep;
  if (lane == 0 && n > 0 && bits_of(a.nearest[i]) == ~a.systems[f].closest_r) {
    const unsigned long long code = cuda::first_code(number_of(a.ids, i, f * a.per_system));
    atomicMax(&a.systems[f].closest, code << 32 | static_cast<unsigned>(i));
  }
  const Lattice lattice{a.input + f};
  const long long base = static_cast<long long>(i) * a.capacity;
  const int* order = a.order + static_cast<long long>(i) * a.kept;
  for (int k = lane; k < n; k += 32) {
    const int candidate = order[k], e = first + k;
    const Image to = unpack(a.j[base + candidate], a.code[base + candidate]);
    double v[3], d[3];
    translation(v, lattice, to.m);
    a.r[e] = displacement(d, a.wrapped + 3LL * to.j, a.wrapped + 3LL * i, v);
#pragma unroll
    for (int c = 0; c < 3; ++c) a.d[3LL * e + c] = d[c];
    store_edge(a.master, e, i, to.j);
    if (k < nrep) store_edge(a.repformer, rep + k, i, to.j);
  }
}

// One thread per edge: the edges to each atom, in any order. The first block also writes down what the host is told.
extern "C" __global__ void __launch_bounds__(128) fill_incoming(const cuda::FillArgs a) {
  const int e = blockIdx.x * blockDim.x + threadIdx.x;
  if (blockIdx.x == 0) {
    if (threadIdx.x == 0) *a.status = *a.notes;
    for (int f = threadIdx.x; f < a.frames; f += blockDim.x) report_system(a, f);
  }
  fill(a.lists.master, e, a.lists.centres);
  fill(a.lists.repformer, e, a.lists.centres);
}

// One warp per atom and list.
extern "C" __global__ void __launch_bounds__(128) sort_incoming(const cuda::IncomingArgs a) {
  const int row = row_of_warp();
  if (row < a.atoms)
    sort_edges(a.master, row);
  else if (row - a.atoms < a.atoms)
    sort_edges(a.repformer, row - a.atoms);
}
