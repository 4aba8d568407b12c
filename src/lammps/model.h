// A model file, as the styles of LAMMPS take it.
#ifndef DPA2_LAMMPS_MODEL_H
#define DPA2_LAMMPS_MODEL_H

#include <string>
#include <vector>

#include "dpa2.hpp"
#include "part.h"

namespace dpa2_lammps {

/// A model and what the atom types of LAMMPS are in it.
class Model : public Part {
 public:
  /// Reads a file on the first process and sends it to the others.
  ///   precision    "float64", "float32", or "" for the file's own
  ///   device       "cpu", "cuda" for the GPU of this process, or "cuda:N"
  ///   if_missing   what to add to the message where the file cannot be read
  Model(LAMMPS_NS::LAMMPS*, const Names&, const std::string& path, const std::string& precision, const std::string& device,
        const std::string& if_missing = "");

  /// The elements that an input script names, one for every atom type, "NULL" for one that takes no part; none for the
  /// model's own order.
  void map_types(const std::vector<std::string>& elements);
  /// A warning where the masses of types are not those of their elements, unless it is the one that was `said`.
  void warn_of_masses(std::string& said) const;
  /// What the last evaluation has to say, every kind once; `overflow`: "warn", "error" or "ignore" for full lists.
  void report_warnings(const std::string& overflow);
  /// Ends the run: the evaluation of this model has failed on this process.
  [[noreturn]] void fail(const std::string& what) const { fail_here("model " + path + ": " + what); }
  /// Doubles of the widest row that the model exchanges.
  [[nodiscard]] int widest_row() const;

  const std::string path;
  const dpa2::Model network;
  std::vector<int> type_of;  ///< LAMMPS type -> type of the model, -1: takes no part

 private:
  [[nodiscard]] std::vector<double> masses() const;

  std::vector<dpa2_warning> said_;  // kinds of warnings that were given
};

}  // namespace dpa2_lammps

#endif
