// What there is to say where neighbour lists cannot be made: the same words from the CPU and from a GPU.
#pragma once

#include "error.hpp"

namespace dpa2 {

Error unknown_type(int atom, int type, int ntypes);
/// Coordinate number `axis` of an atom that is not finite or too large.
Error bad_coordinate(int atom, int axis, double value);
Error too_far_from_cell(int atom, double cells);
Error same_place(int atom, int other);
/// A pair at a distance (angstrom) that the pair table of the model does not know.
Error before_table(int atom, int other, double r, double begin);
Error too_skewed();
Error cell_too_small(double volume, int atoms, double images, double radius);

}  // namespace dpa2
