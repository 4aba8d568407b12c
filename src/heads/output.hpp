// What a head computes, said before it is computed: names and units for every interface, shapes for those who give the arrays.
#pragma once

#include <string>
#include <vector>

namespace dpa2 {

/// How the value of a frame comes from those of its atoms.
enum class Reduction { none, sum, mean };

/// One output. Names and units are deepmd-kit's.
struct OutputSpec {
  std::string name, unit;
  std::vector<int> shape;                  ///< of one atom's or of the frame's value; empty: a number
  bool per_atom = false;
  Reduction reduction = Reduction::none;   ///< of a value of the frame: over the atoms' values of `of`
  std::string of;                          ///< the output that this one is a reduction or a derivative of; empty: of its own
  bool ghosts = false;                     ///< per atom: rows for ghosts as well, which their owners add to their own

  /// Numbers in one value.
  [[nodiscard]] int size() const {
    int n = 1;
    for (const int extent : shape) n *= extent;
    return n;
  }
};

}  // namespace dpa2
