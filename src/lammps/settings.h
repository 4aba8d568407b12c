// The keywords that every style with models has, and the parameters of models.
#ifndef DPA2_LAMMPS_SETTINGS_H
#define DPA2_LAMMPS_SETTINGS_H

#include <string>
#include <vector>

#include "device.h"
#include "part.h"

namespace LAMMPS_NS {
class Compute;
}

namespace dpa2_lammps {

class Settings : public Part {
 public:
  using Part::Part;

  [[nodiscard]] static bool is_keyword(const std::string& word);
  /// Whether a keyword gives parameters of the model.
  [[nodiscard]] static bool is_parameter(const std::string& keyword);
  /// The value of `precision` among the words, or "": it decides how a model is prepared, wherever it stands.
  [[nodiscard]] std::string find_precision(const std::vector<std::string>& words, std::size_t first) const;
  /// The value of `device`, or "cpu": likewise.
  [[nodiscard]] std::string find_device(const std::vector<std::string>& words, std::size_t first) const;
  /// Defaults, for models with these numbers of parameters.
  void reset(int fparam_dim, int aparam_dim, bool on_gpu);
  /// The keyword at words[k], with k left at its last value; false if it is none of these.
  bool keyword(std::size_t& k, const std::vector<std::string>& words);
  /// The word behind words[k], which needs one; k goes on to it.
  const std::string& value(std::size_t& k, const std::vector<std::string>& words) const;
  double number(std::size_t& k, const std::vector<std::string>& words) const;

  /// Parameters that a compute or a fix gives, asked for at every evaluation. One set of atomic ones stands for all atoms.
  void gather_parameters();
  [[nodiscard]] const double* fparam() const { return fparam_.values.empty() ? nullptr : fparam_.values.data(); }
  [[nodiscard]] const double* aparam() const { return aparam_.values.empty() ? nullptr : aparam_.values.data(); }
  [[nodiscard]] int threads() const;
  [[nodiscard]] const std::string& overflow() const { return overflow_; }
  /// Whether models are on a GPU, and whether MPI takes its memory.
  [[nodiscard]] bool on_gpu() const { return on_gpu_; }
  [[nodiscard]] bool gpu_aware() const { return on_gpu_ && Device::mpi_takes(gpu_aware_); }

 private:
  // Parameters of the model: numbers of the input script, or of a compute or fix that is asked at every evaluation.
  struct Parameters {
    int dim = 0;
    std::string compute, fix;  // the ID of the one that gives them, or empty
    std::vector<double> values;
  };
  Parameters& source(const std::string& word);
  LAMMPS_NS::Compute* find_compute(const std::string& id) const;
  void frame_parameters_of_compute();
  void frame_parameters_of_fix();
  void atomic_parameters_of_compute();

  Parameters fparam_, aparam_;
  int threads_ = 0;  // 0: what LAMMPS uses
  std::string overflow_ = "warn";
  bool on_gpu_ = false;
  std::string gpu_aware_ = "auto";
};

}  // namespace dpa2_lammps

#endif
