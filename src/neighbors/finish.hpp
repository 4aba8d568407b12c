// From the unordered candidates of a centre to its lists: sort, truncate, exclude, count (theory 1.2-1.4).
// Shared by every source of candidates.
#pragma once

#include <cstdint>
#include <vector>

#include "neighbors/build.hpp"
#include "neighbors/cells.hpp"

namespace dpa2 {

// Sorts and cuts the lists of one centre after the other and appends them to its own buffers. One per thread.
class Finisher {
 public:
  // The buffer that the candidates of the next centre are written to, with room for n.
  [[nodiscard]] Candidate* room(int n);

  // A frame; ids as in NeighborBuilder::set_ids, rows: that of each atom in the lists, or null where atoms are rows. numbered: the first
  // image number of a candidate is its number in an order in which equal distances stay.
  void begin(const NeighborSettings& settings, const int* ids, const int* rows, bool numbered = false);
  void begin_block();  // drops the edges appended so far, keeps overflow and error

  // Appends the list of atom i, which is centre `row`, made from the first n candidates in room(). types: of all atoms. Counts go
  // to edges.start[row + 1] (number of edges), n_three, n_repformer, pad_repinit, pad_three; distinct centres may be finished concurrently.
  void finish(int i, int row, int n, const int* types, Edges& edges);
  // A centre without neighbours.
  void finish_empty(int row, Edges& edges) const;

  [[nodiscard]] int edge_count() const noexcept { return count_; }
  // Copies the appended edges to edge number `first` of `edges`.
  void copy_to(Edges& edges, std::int64_t first) const;
  // Adds this thread's worst atoms to `worst` (one entry per Block; sel == 0: none).
  void merge_overflow(Overflow (&worst)[3]) const;

  [[nodiscard]] const ClosestPair& closest() const noexcept { return closest_; }

  // The first pair at distance zero, or centre -1.
  struct Coincidence {
    int centre = -1, neighbor = -1;
  };
  [[nodiscard]] Coincidence coincidence() const noexcept { return coincidence_; }

  ImageCells::Search search;  // scratch of the search for candidates

 private:
  struct Key {
    double r;
    int index;
  };
  void reserve(int n);
  void sort(int n);
  [[nodiscard]] int cut(int n, double rcut) const;
  void order_ties(int n);
  void note(Block block, int atom, int count, int sel, double rcut);

  [[nodiscard]] int id(int atom) const { return ids_ != nullptr ? ids_[atom] : atom; }

  NeighborSettings settings_;
  const int *ids_ = nullptr, *rows_ = nullptr;
  bool numbered_ = false;
  std::vector<Candidate> candidates_;
  std::vector<Key> keys_, sorted_;
  std::vector<int> bucket_;
  int count_ = 0;  // edges appended; the buffers only grow
  std::vector<int> j_, image_;
  std::vector<double> d_, r_;
  Overflow worst_[3];
  ClosestPair closest_;
  Coincidence coincidence_;
};

}  // namespace dpa2
