// From binned atoms to the edges that each centre keeps, by the definition of neighbors/build.hpp: collect what is within the cutoff,
// sort, cut, exclude.
//
// Decisions:
// - No image points: the search walks over the bins of the reduced lattice and beyond its faces, where a bin stands for its image.
//   Any cell, however small or skewed, and any mix of periodic and open directions go through the same loop.
// - One warp per centre: distances, ranks and ties of a centre need no other. There is room for `capacity` candidates; where a
//   centre has more, it says how many, and there are no lists.
// - Atomics only on integers. The order that they leave in a bin shows nowhere: the final order is that of distances, atom
//   numbers and images alone.
// - Double precision whatever `real` is: equal distances must be seen as equal.
#include "cuda/candidates.hpp"

#include "cuda/search.cuh"
#include "cuda/sort.cuh"

using namespace dpa2;
using namespace dpa2::neighbors;

namespace dpa2 {
namespace neighbors {

/// The candidates of one centre, in the order in which they were found.
struct Candidates {
  const int* j;
  const long long* code;
  __device__ Image image(int k) const { return unpack(j[k], code[k]); }
};

/// Keys and what they hold.
struct Keys {
  unsigned long long* key;
  int bits;
  __device__ unsigned long long distance(int p) const { return key[p] >> bits; }
  __device__ int candidate(int p) const { return static_cast<int>(key[p] & ((1ULL << bits) - 1)); }
};

/// Whether candidate a comes before b where their distances are equal: by atom, then by image.
__device__ __forceinline__ bool before(const Candidates& all, const Lattice& lattice, const cuda::CandidateArgs& args, int i, int a,
                                       int b) {
  const int ja = all.j[a], jb = all.j[b];
  if (ja != jb) {
    const int na = number_of(args.ids, ja, 0), nb = number_of(args.ids, jb, 0);
    if (na != nb) return na < nb;
    // Ghosts that are images of one atom have its number: then their places decide, as on the CPU (neighbors/finish.cpp).
    for (int c = 0; c < 3; ++c) {
      const double apart = args.wrapped[3LL * ja + c] - args.wrapped[3LL * jb + c];
      if (fabs(apart) > args.tolerance) return apart < 0;
    }
    return ja < jb;
  }
  int na[3], nb[3];
  image_number(na, lattice, args.shift, i, all.image(a));
  image_number(nb, lattice, args.shift, i, all.image(b));
  if (na[0] != nb[0]) return na[0] < nb[0];
  if (na[1] != nb[1]) return na[1] < nb[1];
  return na[2] < nb[2];
}

/// Leading entries of the sorted keys within rcut; equal ones stay together. The same in all lanes.
__device__ __forceinline__ int cut(const Keys& sorted, int n, unsigned long long rcut, unsigned long long tolerance) {
  int within = 0;
  for (int k = lane_number(); k < n; k += 32) within += sorted.distance(k) <= rcut ? 1 : 0;
  within = count_all(within);
  while (within > 0 && within < n && sorted.distance(within) - sorted.distance(within - 1) <= tolerance) ++within;
  return within;
}

/// The atom with the most neighbours: of equal ones the first.
__device__ __forceinline__ void note_overflow(unsigned long long* worst, int number, int count, int sel) {
  if (count > sel) atomicMax(worst, static_cast<unsigned long long>(count) << 32 | cuda::first_code(number));
}

/// Up to 32 atoms of a row of bins, from place `at` on, and the one of this lane; no row: there are no more.
struct Piece {
  int row = -1, at = 0, end = 0, atom = 0;
};

__device__ __forceinline__ void place(double (&x)[3], const double* wrapped, int atom) {
#pragma unroll
  for (int c = 0; c < 3; ++c) x[c] = wrapped[3LL * atom + c];
}

/// One warp: the lists of centre i.
__device__ __forceinline__ void finish_centre(const cuda::CandidateArgs& a, int i, const Keys& keys) {
  const int lane = lane_number(), f = i / a.per_system;
  const Lattice lattice{a.input + f};
  const long long base = static_cast<long long>(i) * a.capacity;
  int* const j = a.j + base;
  long long* const code = a.code + base;
  int* const order = a.order + static_cast<long long>(i) * a.kept;
  const int home = a.bin[i];
  const double xi[3] = {a.wrapped[3LL * i], a.wrapped[3LL * i + 1], a.wrapped[3LL * i + 2]};

  int n = 0;
  if (home >= 0) {
    const int first_bin = f * a.bins;
    const BinRows rows(lattice, a.layout[f], home - first_bin);
    for (int number = 0; number < rows.count; number += 32) {
      // Each lane looks up one row; then all lanes go through the atoms of each. What is read is asked for before it is needed: atoms two
      // pieces ahead, their places one.
      BinRow own;
      if (number + lane < rows.count) own = rows.row(lattice, a.layout[f], a.first + first_bin, number + lane);
      unsigned left = __ballot_sync(FULL_MASK, own.begin < own.end);
      Piece now, next, later;
      const auto take = [&](Piece& piece, const Piece& before) {
        piece = before;
        piece.at += 32;
        if (piece.at >= piece.end) {
          piece.row = left != 0 ? __ffs(static_cast<int>(left)) - 1 : -1;
          left &= left - 1;
          piece.at = __shfl_sync(FULL_MASK, own.begin, max(piece.row, 0));
          piece.end = __shfl_sync(FULL_MASK, own.end, max(piece.row, 0));
        }
        piece.atom = piece.row >= 0 && piece.at + lane < piece.end ? a.sorted[piece.at + lane] : i;
      };
      take(now, now);
      take(next, now);
      double x[3], ahead[3];
      place(x, a.wrapped, now.atom);
      while (now.row >= 0) {
        take(later, next);
        place(ahead, a.wrapped, next.atom);
        int m[3];
#pragma unroll
        for (int c = 0; c < 3; ++c) m[c] = __shfl_sync(FULL_MASK, own.m[c], now.row);
        double v[3], d[3];
        translation(v, lattice, m);
        const double r = displacement(d, x, xi, v);
        const bool home_cell = m[0] == 0 && m[1] == 0 && m[2] == 0;
        const bool hit = now.at + lane < now.end && r <= a.radius && !(home_cell && now.atom == i);
        const unsigned hits = __ballot_sync(FULL_MASK, hit);
        const int at = n + __popc(hits & ((1u << lane) - 1));
        if (hit && at < a.capacity) {
          j[at] = now.atom;
          code[at] = pack(m);
          keys.key[at] = static_cast<unsigned long long>(r * a.scale) << a.index_bits | static_cast<unsigned long long>(at);
        }
        n += __popc(hits);
        now = next, next = later;
#pragma unroll
        for (int c = 0; c < 3; ++c) x[c] = ahead[c];
      }
    }
  }
  if (n > a.capacity) {
    // Nothing else is known of this centre: it counts with as many edges as it can have.
    if (lane == 0) {
      atomicMax(&a.notes->needed_candidates, n);
      atomicOr(&a.notes->failed, 1);
      a.stored[i] = min(n, a.most);
      a.repformer[i] = min(n, a.repformer_nsel);
      a.three[i] = a.use_three != 0 ? min(n, a.three_nsel) : 0;
      a.pad_repinit[i] = a.pad_three[i] = 0;
      a.nearest[i] = 0.0;
    }
    return;
  }
  __syncwarp(FULL_MASK);
  sort_by_warp(keys.key, n);

  const int kept = min(n, a.most);
  const unsigned long long tolerance = static_cast<unsigned long long>(a.tolerance * a.scale);
  // Runs of distances that are equal up to rounding: by atom and image.
  for (int p = lane; p < n; p += 32) {
    int begin = p, end = p + 1;
    while (begin > 0 && keys.distance(begin) - keys.distance(begin - 1) <= tolerance) --begin;
    if (begin >= kept) continue;
    while (end < n && keys.distance(end) - keys.distance(end - 1) <= tolerance) ++end;
    const int k = keys.candidate(p);
    int rank = begin;
    if (end - begin > 1)
      for (int q = begin; q < end; ++q) rank += before({j, code}, lattice, a, i, keys.candidate(q), k) ? 1 : 0;
    if (rank < kept) order[rank] = k;
  }
  const auto within = [&](double rcut) { return cut(keys, n, static_cast<unsigned long long>((rcut + a.tolerance) * a.scale), tolerance); };
  const int within_repformer = within(a.repformer_rcut), within_three = a.use_three != 0 ? within(a.three_rcut) : 0;
  const int rep = min(min(within_repformer, a.repformer_nsel), kept), three = min(min(within_three, a.three_nsel), kept);
  __syncwarp(FULL_MASK);

  // Excluded neighbours have used up slots; now they go. What remains moves forward, never past what is still to be read.
  int used = kept, used_three = three, left = kept, left_three = three, left_rep = rep;
  if (a.excluded != nullptr) {
    used = used_three = left = left_three = left_rep = 0;
    const signed char* row = a.excluded + a.types[i] * a.ntypes;
    for (int p0 = 0; p0 < kept; p0 += 32) {
      const int p = p0 + lane, k = p < kept ? order[p] : 0;
      const int how = p < kept ? row[a.types[j[k]]] : 3;
      const unsigned in_model = __ballot_sync(FULL_MASK, (how & 1) == 0), stays = __ballot_sync(FULL_MASK, how == 0);
      const unsigned in_three = __ballot_sync(FULL_MASK, p < three), in_rep = __ballot_sync(FULL_MASK, p < rep);
      __syncwarp(FULL_MASK);
      if (how == 0) order[left + __popc(stays & ((1u << lane) - 1))] = k;
      used += __popc(in_model);
      used_three += __popc(in_model & in_three);
      left += __popc(stays);
      left_three += __popc(stays & in_three);
      left_rep += __popc(stays & in_rep);
    }
    __syncwarp(FULL_MASK);
  }
  if (lane != 0) return;
  cuda::SystemNotes& notes = a.systems[f];
  const int first_row = f * a.per_system, number = number_of(a.ids, i, first_row);
  note_overflow(&notes.worst[0], number, n, a.most);
  note_overflow(&notes.worst[2], number, within_repformer, a.repformer_nsel);
  if (a.use_three != 0) note_overflow(&notes.worst[1], number, within_three, a.three_nsel);
  a.stored[i] = left;
  a.three[i] = left_three;
  a.repformer[i] = left_rep;
  a.pad_repinit[i] = a.nsel - used;
  a.pad_three[i] = a.use_three != 0 ? a.three_nsel - used_three : 0;
  double nearest = 0.0;
  if (left > 0) {
    const Image to = unpack(j[order[0]], code[order[0]]);
    double v[3], d[3];
    translation(v, lattice, to.m);
    nearest = displacement(d, a.wrapped + 3LL * to.j, xi, v);
    atomicMax(&notes.closest_r, ~bits_of(nearest));
    if (a.coincide != 0 && nearest <= a.tolerance) {
      const unsigned other = static_cast<unsigned>(number_of(a.ids, to.j, first_row));
      atomicMax(&notes.same_place, static_cast<unsigned long long>(cuda::first_code(number)) << 32 | other);
      atomicOr(&a.notes->failed, 1);
    }
  }
  a.nearest[i] = nearest;
}

}  // namespace neighbors
}  // namespace dpa2

// One warp per centre.
extern "C" __global__ void __launch_bounds__(128, 6) find_neighbors(const cuda::CandidateArgs a) {
  DYNAMIC_SHARED(unsigned long long, keys);
  const int i = row_of_warp();
  if (i >= a.centres) return;
  // Two copies, so that each knows which memory its keys are in.
  if (a.keys == nullptr)
    finish_centre(a, i, {keys + a.capacity * (threadIdx.x / 32), a.index_bits});
  else
    finish_centre(a, i, {a.keys + static_cast<long long>(i) * a.capacity, a.index_bits});
}
