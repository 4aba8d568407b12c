// How large lengths may be: one number for the CPU and the GPU.
#pragma once

namespace dpa2 {

/// Angstrom. Farther out than this (a millimetre) a double no longer resolves a bond to the precision that is promised.
constexpr double largest_length = 1e7;

}  // namespace dpa2
