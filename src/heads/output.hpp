// What a head computes, said before it is computed: names and units for every interface, shapes for those who give the arrays.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "error.hpp"

namespace dpa2 {

/// How the value of a frame comes from those of its atoms.
enum class Reduction { none, sum, mean };

/// "sum", "mean" or "".
inline const char* reduction_name(Reduction reduction) noexcept {
  switch (reduction) {
    case Reduction::sum:
      return "sum";
    case Reduction::mean:
      return "mean";
    case Reduction::none:
      break;
  }
  return "";
}

/// One output. Names and units are deepmd-kit's; what has no unit, or that of the data which the model was trained on, has "".
struct OutputSpec {
  std::string name, unit;
  std::vector<int> shape;  ///< of one atom's or of the frame's value
  bool per_atom = false;
  Reduction reduction = Reduction::none;  ///< of a value of the frame: over the atoms' values of `of`
  std::string of;                         ///< the output that this one is a reduction or a derivative of; empty: of its own
  bool ghosts = false;                    ///< per atom: rows for ghosts as well, which their owners add to their own

  /// Whether it is minus a derivative of `of`.
  [[nodiscard]] bool derivative() const { return reduction == Reduction::none && !of.empty(); }
  /// Numbers in one value.
  [[nodiscard]] int size() const {
    int n = 1;
    for (const int extent : shape) n *= extent;
    return n;
  }
};

/// Where the outputs of one evaluation go: the caller's arrays by name. What has no array, or null, is not computed. A name is
/// looked up once per evaluation. A rank without atoms also names what its peers name, with pointers that are not null, or they
/// would wait for exchanges that it does not take part in.
///
///   energy models   energy (1), atom_energy (nlocal), force (nall, 3), virial (9), atom_virial (nall, 9); eV, angstrom; virials
///                   row-major, first index the force component
///   spin models     the same, and force_mag (nall, 3)
///   dipole          global_dipole (3), dipole (nlocal, 3), and of each of its components force (nall, 3, 3), virial (3, 9),
///                   atom_virial (nall, 3, 9), the component before the direction
///   polar           global_polar (9), polar (nlocal, 9)
///   dos             dos (numb_dos), atom_dos (nlocal, numb_dos); 1/eV
///   property        <name> (task_dim), the sum or the mean of atom_<name> (nlocal, task_dim)
///   population      population (nlocal, 2)
///   all             descriptor (nlocal, descriptor_dim), rot_mat (nlocal, g2_dim, 3)
class Outputs {
 public:
  /// The name has to live as long as this.
  void set(std::string_view name, double* array) {
    Array* at = std::find_if(arrays_.data(), arrays_.data() + number_, [&](const Array& a) { return a.name == name; });
    if (at == arrays_.data() + number_) {
      if (number_ == arrays_.size()) throw internal_error("more outputs than there is room for, ", number_);
      ++number_;
    }
    *at = {name, array};
  }
  /// Null where the output is not wanted.
  [[nodiscard]] double* array(std::string_view name) const {
    for (std::size_t k = 0; k < number_; ++k)
      if (arrays_[k].name == name) return arrays_[k].array;
    return nullptr;
  }

 private:
  struct Array {
    std::string_view name;
    double* array = nullptr;
  };
  std::array<Array, 16> arrays_;  // more than any model has; an evaluation takes no memory for them
  std::size_t number_ = 0;
};

}  // namespace dpa2
