// The lattice of a periodic cell in short vectors.
#pragma once

#include <array>
#include <cstdint>

#include "neighbors/box.hpp"

namespace dpa2 {

inline constexpr double image_limit = 5e8;  // largest image number that may be stored in an int, with room for sums

struct ReducedLattice {
  Box box;                                                 // open directions orthonormal
  std::array<std::array<std::int64_t, 3>, 3> transform{};  // vector a = sum_b transform[a][b] * vector b of the box as given
};

// Shortens the periodic vectors by adding integer multiples of the others, until none gets shorter. Throws invalid_input where that
// takes more than 100000 of one.
ReducedLattice reduced(const Box& box);

}  // namespace dpa2
