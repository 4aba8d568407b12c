// All lattice images of the atoms that can be a neighbour of an atom of the cell, sorted into small cubes.
//
// Decisions:
// - Images are explicit points, so that the search itself knows no periodicity: any cell, however small or skewed, and any
//   mix of periodic and open directions go through the same loop.
// - The lattice is reduced first (short, nearly orthogonal vectors). The images needed by a very skewed cell are then as few
//   as those of the equivalent upright cell.
// - Cubes have half the search radius as edge. They are addressed directly when the bounding volume is about as large as the
//   number of points, else through a hash table of the occupied ones: memory is linear in the number of points even if one
//   atom is far away.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "neighbors/box.hpp"
#include "neighbors/lattice.hpp"

namespace dpa2 {

// One neighbour of a centre before sorting and truncation.
struct Candidate {
  double r;
  double d[3];
  int j;
  int n[3];
};

class ImageCells {
 public:
  // x: (natoms, 3) finite; atoms of type < 0 are left out. Throws invalid_input when atoms are too far from the cell to count
  // images, or the cell so small that the images would not fit in memory. `keep`: follow() will be called. ids: as in
  // NeighborBuilder::set_ids.
  void prepare(const double* x, const int* types, int natoms, const Box& box, double radius, bool keep, const int* ids);

  // What a thread needs to look for the neighbours of one centre after the other.
  struct Search {
    std::vector<std::array<int, 2>> ranges;  // of sorted images
    std::vector<int> hits;
    int total = 0;
  };
  // Finds the cubes around centre i (of type >= 0): at most search.total candidates.
  void locate(int i, Search& search) const;
  // Writes all candidates of centre i within the radius to `out` (room for search.total + 1) in no particular order and returns
  // their number.
  int gather(int i, Search& search, Candidate* out) const;

  struct Image {
    int j, shift;  // number of the atom and of its translation
  };
  // The same as a list to come back to: appends the images within the radius of centre i, however the atoms move later.
  void list(int i, Search& search, std::vector<Image>& out) const;

  // Moves the atoms of prepare() on to x: the same atom numbers, types and box. False, and nothing is changed, when an atom is
  // farther than `most` from where it was then, lattice vectors not counted: callers wrap atoms as they like.
  bool follow(const double* x, const int* types, double most, const int* ids);
  [[nodiscard]] bool close_to(const double* x, const int* types, double most) const;
  // From a list to the candidates of centre i within `radius` of where the atoms are now: bit by bit those of a new search.
  int measure(int i, const Image* images, int count, double radius, Search& search, Candidate* out) const;

 private:
  struct Shift {
    double v[3];  // a lattice vector ...
    int m[3];     // ... in units of the reduced lattice
    int n[3];     // ... of the box as given
  };
  using Cell = std::array<std::int32_t, 3>;

  int hit(int i, Search& search) const;
  [[nodiscard]] Candidate candidate(int i, int j, const Shift& shift) const;
  [[nodiscard]] Candidate moved_candidate(int i, const Image& image) const;
  [[nodiscard]] bool displacement(int i, const double* x, double most, double (&cells)[3]) const;
  void wrap(const double* x, const int* types, int natoms, bool keep, const int* ids);
  [[nodiscard]] Vec3 moved(const double* x, const double (&cells)[3]) const;
  void wrap_atom(int i, const double* x, double (&cells)[3], const int* ids);
  void make_images(const int* types, int natoms);
  [[nodiscard]] Shift translation(int m0, int m1, int m2) const;
  int add_shift(int m0, int m1, int m2);
  void sort_into_cells();
  [[nodiscard]] Cell cell_of(const double* p) const noexcept;
  [[nodiscard]] int find(const Cell& cell) const noexcept;
  int insert(const Cell& cell);

  double radius_ = 0.0;
  Box lattice_;                                     // reduced; open directions orthonormal
  std::array<std::array<std::int64_t, 3>, 3> t_{};  // reduced vector a = sum_b t_[a][b] * box vector b
  std::vector<double> wrapped_;                     // (natoms, 3)
  std::vector<double> frac_;                        // (natoms, 3)
  std::vector<int> shift_;                          // (natoms, 3) wrapped = x - shift B, in units of the box as given
  std::vector<double> start_;                       // (natoms, 3) x of prepare()
  std::vector<int> cell_;                           // (natoms, 3) wrapped = x - cell * lattice, then
  // Of follow(): where the atoms are, seen from where they were, and by how many cells farther they would be wrapped now.
  std::vector<double> near_;                 // (natoms, 3)
  std::vector<std::array<int, 3>> crossed_;  // (natoms) wrapped = near - crossed * lattice

  std::vector<Shift> shifts_;         // every translation that occurs; the first is zero
  std::vector<int> shift_of_;         // scratch: number of a translation, or -1
  std::vector<double> px_, py_, pz_;  // images before sorting
  std::vector<Image> pimage_;
  std::vector<int> pcell_;

  bool direct_ = true;
  double origin_[3] = {0.0, 0.0, 0.0};
  double edge_ = 1.0, inv_edge_ = 1.0;
  Cell dims_{};                       // direct addressing
  std::vector<Cell> keys_;            // hashed addressing: the occupied cells ...
  std::vector<int> slots_;            // ... and the open-address table of their numbers
  std::vector<int> first_;            // (ncell + 1)
  std::vector<double> sx_, sy_, sz_;  // images sorted by cell
  std::vector<Image> simage_;
};

}  // namespace dpa2
