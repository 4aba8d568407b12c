// Edges: the only geometry that the kernels see (theory 1).
//
// The neighbours of every centre in CSR form, nearest first. One list serves the three blocks of the model: because of the
// order, the three-body and the repformer list of a centre are prefixes of its repinit list. Only real neighbours are stored;
// what the padded slots of a fixed-width list would add is expressed by pad_repinit, pad_three and the model's nsel.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace dpa2 {

enum class Block { repinit = 0, three_body = 1, repformer = 2, se_e2_a = 3, dpa1 = 4, hybrid = 5 };

[[nodiscard]] inline const char* block_name(Block block) noexcept {
  switch (block) {
    case Block::repinit:
      return "repinit";
    case Block::three_body:
      return "three_body";
    case Block::repformer:
      return "repformer";
    case Block::se_e2_a:
      return "se_e2_a";
    case Block::dpa1:
      return "dpa1";
    case Block::hybrid:
      return "hybrid";
  }
  return "?";
}

// The atom with the most neighbours beyond a block's nsel: `count` atoms lie within the block's cutoff, `sel` were kept.
struct Overflow {
  Block block = Block::repinit;
  int atom = 0;
  int count = 0;
  int sel = 0;
  double rcut = 0;  // angstrom
};

// The two atoms nearest to each other among those that interact: angstrom, numbers as in Overflow. No pair within the cutoff: i < 0.
struct ClosestPair {
  double r = HUGE_VAL;
  int i = -1, j = -1;
  // Of equally close ones the first: the pair does not depend on who looked for it.
  [[nodiscard]] bool before(const ClosestPair& o) const noexcept { return r != o.r ? r < o.r : i != o.i ? i < o.i : j < o.j; }
};

// Atoms whose nearest neighbour is so far that a zbl model takes their energy from its table (math/pair_table.hpp).
struct Clamped {
  int atom = -1;  // the first of them: its number as in Overflow; -1: there is none
  int count = 0;
};

// What there is to say about lists that were made, and about what was made of them.
struct Remarks {
  std::vector<Overflow> overflow;
  ClosestPair closest;
  Clamped clamped;
};

struct Edges {
  int nlocal = 0;                           // centres
  int nall = 0;                             // rows that j can point to (== nlocal without ghosts)
  bool keep_image = true;                   // set by the caller before the lists are built: no kernel needs the images
  std::vector<std::int64_t> start;          // (nlocal + 1)
  std::vector<int> j;                       // (nedge)     row of the neighbour
  std::vector<double> d;                    // (nedge, 3)  x_j + n B - x_i, angstrom
  std::vector<double> r;                    // (nedge)     |d|
  std::vector<int> image;                   // (nedge, 3)  n of d, relative to the coordinates as given (unwrapped); empty unless asked for
  std::vector<int> n_three, n_repformer;    // (nlocal)    prefix lengths of the three-body and repformer lists
  std::vector<int> pad_repinit, pad_three;  // (nlocal)    padded-slot counts of repinit and three-body (0 without three-body)
  std::vector<Overflow> overflow;           // at most one entry per block
  ClosestPair closest;

  [[nodiscard]] std::int64_t nedge() const noexcept { return start.empty() ? 0 : start.back(); }
  [[nodiscard]] int count(int i) const noexcept {
    return static_cast<int>(start[static_cast<std::size_t>(i) + 1] - start[static_cast<std::size_t>(i)]);
  }

  // Empties the lists and keeps their memory for the next step.
  void clear() noexcept {
    nlocal = nall = 0;
    start.clear();
    j.clear();
    d.clear();
    r.clear();
    image.clear();
    n_three.clear();
    n_repformer.clear();
    pad_repinit.clear();
    pad_three.clear();
    overflow.clear();
    closest = {};
  }
};

}  // namespace dpa2
