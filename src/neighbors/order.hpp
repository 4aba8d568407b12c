// Atoms in an order in which neighbours in space are neighbours in memory.
//
// The rows of an atom's neighbours are read in every layer: for a box that does not fit into the cache the order of the atoms
// decides how often they come from memory, and for several threads how many rows a range of centres has outside of itself.
#pragma once

#include <cstdint>
#include <vector>

#include "neighbors/box.hpp"

namespace dpa2 {

class SpatialOrder {
 public:
  /// From this many atoms on an order is worth its cost.
  static constexpr int smallest = 1024;

  /// Orders the atoms along a Morton curve through cubes of the given edge (angstrom); within a cube they keep their order.
  /// x: (natoms, 3) finite, anywhere in space.
  void choose(const double* x, int natoms, const Box& box, double edge);
  /// The order that another one has chosen.
  void copy(const SpatialOrder& other) { atom_ = other.atom_; }
  /// Every atom stays where it is.
  void clear() noexcept { atom_.clear(); }

  bool active() const noexcept { return !atom_.empty(); }
  int natoms() const noexcept { return static_cast<int>(atom_.size()); }
  /// (natoms): the caller's number of the atom in each place; null where not active.
  const int* atoms() const noexcept { return active() ? atom_.data() : nullptr; }

  /// to (natoms, width) = the caller's rows in this order.
  template <class T>
  void gather(T* to, const T* from, int width) const {
    for (std::size_t k = 0; k < atom_.size(); ++k)
      for (int c = 0; c < width; ++c)
        to[k * static_cast<std::size_t>(width) + static_cast<std::size_t>(c)] = from[static_cast<std::ptrdiff_t>(atom_[k]) * width + c];
  }
  /// rows (natoms, width) in this order go back to the caller's, in place.
  void restore(double* rows, int width);

 private:
  struct Key {
    std::uint64_t code;
    int atom;
  };
  std::vector<int> atom_;
  std::vector<Key> keys_;
  std::vector<char> done_;
  std::vector<double> row_;
};

}  // namespace dpa2
