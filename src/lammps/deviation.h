// How far models differ in forces and virial, and the file that says so.
#ifndef DPA2_LAMMPS_DEVIATION_H
#define DPA2_LAMMPS_DEVIATION_H

#include <sys/types.h>

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
double force_deviation(const std::vector<const double*>& forces, double eps);

/// Of the nine components of the virials (per atom); the average is the root of the mean square.
Spread virial_deviation(const std::vector<std::vector<double>>& virials, double eps);

/// What an evaluation has to say: the deviations, and how much of each may be rounding.
struct Row {
  struct Part {
    Spread spread;
    double noise = 0.0;
  };
  std::int64_t step = 0;
  std::vector<Part> parts;  ///< of the virial and of forces, as Deviation::titles has them
};

/// model_devi.out: a line per output step, that of its last evaluation. Monte Carlo evaluates states that it rejects, with the
/// same step number, and the one that stays at the end.
class Deviation {
 public:
  Deviation() = default;
  Deviation(const Deviation&) = delete;
  Deviation& operator=(const Deviation&) = delete;
  ~Deviation() { close(); }

  std::string file = "model_devi.out";
  std::vector<std::string> titles = {"v", "f"};  ///< of the columns: max_devi_v, ...
  bool atomic = false;
  double relative = -1.0, relative_v = -1.0;  ///< eps, or less than 0: absolute deviations

  enum class Opened { yes, no, taken };
  /// Opens the file for this writer alone; `taken`: another one of this or another process has it. What is in it stays as it
  /// is until a run begins. `among_others`: with other processes of one program, of which a slow one must not replace what a
  /// fast one has written and closed. It is this process's until its end.
  Opened open(bool continued, bool among_others);
  void close();
  /// A run begins: rows so far are final. The first run makes the file new, or goes on behind its last row. False where the
  /// file cannot be written.
  bool begin_run();
  /// `per_atom`: in the order of the atoms' numbers, only with `atomic`. The row takes the place of one of the same step in the
  /// same run, and is left out where the run before ended in the same state. False where the file cannot be written.
  bool write(const Row& row, const std::vector<double>& per_atom);

 private:
  bool take_back();
  bool read_last_row();

  std::FILE* out_ = nullptr;
  bool regular_ = false;  // a pipe or a device cannot take rows back
  bool continued_ = false, among_others_ = false, begun_ = false;
  dev_t device_ = 0;
  ino_t inode_ = 0;
  struct Written {
    bool there = false;
    Row row;
    off_t place = 0;
  } last_, final_;  // the row that may still be replaced, and the one before it
};

}  // namespace dpa2_lammps

#endif
