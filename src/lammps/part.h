// What every part of a style has: LAMMPS's classes, and the style's name for messages.
#ifndef DPA2_LAMMPS_PART_H
#define DPA2_LAMMPS_PART_H

#include <string>

#include <lammps/pointers.h>

namespace dpa2_lammps {

/// How messages speak of a style.
struct Names {
  std::string style;      ///< as an input script calls it: "pair_style dpa2"
  std::string elements;   ///< where it names the elements of the atom types: "pair_coeff"
  std::string note = {};  ///< what to add where a model is not one of ours
};

class Part : protected LAMMPS_NS::Pointers {
 public:
  Part(LAMMPS_NS::LAMMPS* lammps, const Names& names)
      : Pointers(lammps), style(names.style), elements_place(names.elements), note(names.note) {}

  /// Ends the run because of something that only this process knows.
  [[noreturn]] void fail_here(const std::string& what) const;
  /// Says what is about to end the run, before anybody ends it.
  void announce(const std::string& what) const;

 protected:
  const std::string style, elements_place, note;
};

}  // namespace dpa2_lammps

#endif
