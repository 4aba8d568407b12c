// How far models differ in forces and virial, and the file that says so.
#ifndef DPA2_LAMMPS_DEVIATION_H
#define DPA2_LAMMPS_DEVIATION_H

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

namespace dpa2_lammps {

/// Largest, smallest and average deviation.
struct Spread {
  double max = 0.0, min = 0.0, avg = 0.0;
};

/// Standard deviation (over models, not the sample's) of the force of an atom: the root of the mean squared distance from the
/// mean force; divided by |mean force| + eps where eps >= 0.
double force_deviation(const std::vector<const double *> &forces, double eps);

/// Of the nine components of the virials (per atom); the average is the root of the mean square.
Spread virial_deviation(const std::vector<std::vector<double>> &virials, double eps);

/// model_devi.out: a line per output step.
class Deviation {
 public:
  Deviation() = default;
  Deviation(const Deviation &) = delete;
  Deviation &operator=(const Deviation &) = delete;
  ~Deviation();

  std::string file = "model_devi.out";
  bool atomic = false;
  double relative = -1.0, relative_v = -1.0;  ///< eps, or less than 0: absolute deviations

  /// Makes the file new, with its line of titles; false where that fails.
  bool open();
  /// `per_atom`: in the order of the atoms' numbers, only with `atomic`. False where the file cannot be written.
  bool write(std::int64_t step, const Spread &virial, const Spread &force, const std::vector<double> &per_atom);

 private:
  std::FILE *out_ = nullptr;
};

}  // namespace dpa2_lammps

#endif
