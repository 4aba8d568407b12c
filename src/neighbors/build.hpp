// Builds the neighbour lists of a frame in time and memory linear in the number of atoms (theory 1).
//
// Definition (per centre i of type >= 0; atoms of type < 0 have no neighbours and are nobody's neighbour):
//   1. candidates: all atoms and lattice images with |d| <= repinit.rcut, d = x_j + n B - x_i, except (i, n = 0);
//   2. order: ascending |d|; distances that differ by no more than rounding are equal, and then j, then n decides;
//   3. the first repinit.nsel, or `kept`, are kept; the three-body and repformer lists are the prefixes of at most their nsel entries
//      within their rcut; excluded pairs use up slots here;
//   4. pairs excluded by the model or by the descriptor are removed from what is stored.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "neighbors/box.hpp"
#include "neighbors/edges.hpp"

namespace dpa2 {

// Two distances (angstrom) closer than this are the same distance up to rounding.
inline constexpr double distance_tolerance = 1e-10;

struct ListSpec {
  double rcut = 0.0;  // angstrom
  int nsel = 0;
  bool operator==(const ListSpec& other) const noexcept { return rcut == other.rcut && nsel == other.nsel; }
};

struct NeighborSettings {
  ListSpec repinit, three, repformer;
  bool use_three = false;
  int kept = 0;                 // 0: repinit.nsel; less of it where the list is cut from one of another model
  double env_protection = 0.0;  // with 0 two coinciding atoms are an error
  int ntypes = 0;
  std::vector<char> pair_excluded;   // (ntypes, ntypes) symmetric, or empty: excluded by the model
  std::vector<char> descr_excluded;  // (ntypes, ntypes) symmetric, or empty: excluded by the descriptor
  int first_virtual = 0;             // > 0: a pair with a type from here on is not among the closest: it is close on purpose

  // Whether both make the same lists.
  bool operator==(const NeighborSettings& o) const {
    return repinit == o.repinit && repformer == o.repformer && use_three == o.use_three && (!use_three || three == o.three) &&
           kept == o.kept && env_protection == o.env_protection && ntypes == o.ntypes && pair_excluded == o.pair_excluded &&
           descr_excluded == o.descr_excluded && first_virtual == o.first_virtual;
  }
};

// Throws invalid_input for coordinates that are not finite or too large and types >= ntypes, naming the first such atom: ids (natoms) or,
// where that is null, its row.
void check_atoms(const double* x, const int* types, int natoms, int ntypes, const int* ids);

// A builder keeps its scratch memory between calls; use one per thread of the caller. Calls with the same settings object
// and similar frames do not allocate.
class NeighborBuilder {
 public:
  NeighborBuilder();
  ~NeighborBuilder();
  NeighborBuilder(NeighborBuilder&&) noexcept;
  NeighborBuilder& operator=(NeighborBuilder&&) noexcept;

  // x: (natoms, 3) angstrom, anywhere in space; types: (natoms). `threads` < 1 means 1; the result does not depend on it. OpenMP
  // gets as many threads as it will have in regions over all centres, even where there is less to do: to change their number it ends
  // some and creates others.
  // Throws invalid_input, naming the atoms, for coordinates that are not finite, types >= ntypes, and neighbours at distance
  // zero when env_protection is 0.
  void build(const double* x, const int* types, int natoms, const Box& box, const NeighborSettings& settings, int threads, Edges& edges);

  // The same from candidates found by the caller (any order, may reach beyond the cutoff): rows 0..nlocal-1 of x_all (nall, 3)
  // are the centres, the rest are ghosts; the neighbours of i are firstneigh[i][0..numneigh[i]-1] & index_mask. Images are 0.
  void build_from_list(const double* x_all, const int* types_all, int nlocal, int nall, const int* numneigh, const int* const* firstneigh,
                       int index_mask, const NeighborSettings& settings, int threads, Edges& edges);

  // The same from the list of a hybrid descriptor, which has no exclusions, for one of those that stand in it: its neighbours are among
  // the nearest of that. edges.image, if kept, begins with their numbers in it.
  void build_from_edges(const Edges& whole, const int* types, const NeighborSettings& settings, int threads, Edges& edges);

  // A Verlet list: what is within the cutoff + skin (angstrom) now is all that can be within the cutoff until an atom has
  // moved by skin/2. Atoms may be wrapped in between as the caller likes: jumps by lattice vectors are no movement.
  void build_candidates(const double* x, const int* types, int natoms, const Box& box, const NeighborSettings& settings, double skin,
                        int threads);
  // Whether refresh() would succeed: same number of atoms, types, box and settings as in build_candidates, no atom too far.
  [[nodiscard]] bool holds(const double* x, const int* types, int natoms, const Box& box, const NeighborSettings& settings) const;
  // As build(), bit by bit, from the candidates. False, and `edges` stays as it is, where the candidates do not hold.
  // atoms (natoms, null: the same order): the atom of x that each row of the lists is about.
  bool refresh(const double* x, const int* types, int natoms, const Box& box, const NeighborSettings& settings, const int* atoms,
               int threads, Edges& edges);

  // ids (natoms or nall, null: row numbers; not copied): numbers of the atoms that decide between equal distances and that
  // messages and overflow name, for callers that keep the atoms in another order. From the next call on.
  void set_ids(const int* ids);

  // Called before the lists grow by many bytes; throws if they must not. None: they grow.
  void set_guard(std::function<void(std::int64_t bytes)> guard);

 private:
  struct Scratch;
  std::unique_ptr<Scratch> scratch_;
};

}  // namespace dpa2
