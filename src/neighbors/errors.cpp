#include "neighbors/errors.hpp"

#include <cmath>

namespace dpa2 {

Error unknown_type(int atom, int type, int ntypes) {
  return invalid_input("atom ", atom, " has type ", type, ", but the model has ", ntypes, " types");
}

Error bad_coordinate(int atom, int axis, double value) {
  return invalid_input("coordinate ", axis, " of atom ", atom,
                       std::isfinite(value) ? " is too large; coordinates are in angstrom: " : " is not finite: ", value);
}

Error too_far_from_cell(int atom, double cells) {
  return invalid_input("atom ", atom, " is too far from the periodic cell: ", cells, " cell vectors away");
}

Error same_place(int atom, int other) {
  return invalid_input("atoms ", atom, " and ", other, " are at the same place: the model is not defined at distance 0");
}

Error before_table(int atom, int other, double r, double begin) {
  return invalid_input("atoms ", atom, " and ", other, " are ", r, " angstrom apart, and the pair table of the model begins at ", begin,
                       " angstrom");
}

Error too_skewed() {
  return invalid_input(
      "the box is too skewed: its vectors are sums of shorter ones that repeat the same atoms, with factors beyond 100000; pass those");
}

Error cell_too_small(double volume, int atoms, double images, double radius) {
  return invalid_input("the periodic cell (volume ", volume, " angstrom^3) is too small for ", atoms, " atoms: about ", images,
                       " images of each atom would be needed within ", radius, " angstrom");
}

}  // namespace dpa2
