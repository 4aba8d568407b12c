// Dipoles and polarizabilities: of the frame, of its atoms.
#include <algorithm>
#include <cmath>

#include "error.hpp"
#include "train/batch_loss.hpp"

namespace dpa2::train {
namespace {

class TensorLoss final : public BatchLoss {
 public:
  TensorLoss(Section& section, const LossModel& model) : BatchLoss(section, model) {
    frame_weight_ = section.number("pref", 0.0, 0.0);
    atom_weight_ = section.number("pref_atomic", 0.0, 0.0);
    weights_ = section.boolean("enable_atomic_weight", false);
    if (frame_weight_ == 0.0 && atom_weight_ == 0.0)
      throw invalid_input("loss.pref and loss.pref_atomic are both zero: nothing would be learned");
  }

  [[nodiscard]] std::vector<LabelSpec> labels() const override {
    const std::string name = model_.kind == FittingType::dipole ? "dipole" : "polarizability";
    std::vector<LabelSpec> out;
    if (atom_weight_ > 0.0) out.push_back({Label::atom_value, "atom_" + name, model_.width, true, false});
    if (frame_weight_ > 0.0) out.push_back({Label::value, name, model_.width, false, false});
    if (weights_) out.push_back({Label::atom_weight, "atom_weight", 1, true, false});
    return out;
  }

  void add(const LossFrame& frame, const LossSeeds& seeds) override {
    if (seeds.atoms != nullptr) std::fill_n(seeds.atoms, static_cast<std::ptrdiff_t>(frame.natoms) * model_.width, 0.0);
    if (with_atoms_) add_atoms(frame, seeds);
    if (with_frame_) add_frame(frame, seeds);
  }
  [[nodiscard]] std::vector<double*> sums() override { return {&atom_squares_, &frame_squares_}; }
  [[nodiscard]] double value() const override { return atom_weight_ * atom_squares_ + frame_weight_ * frame_squares_; }
  [[nodiscard]] Parts parts() const override {
    const std::string name = model_.kind == FittingType::dipole ? "dipole" : "polar";
    Parts out;
    if (atom_weight_ > 0.0) out.emplace_back("rmse_local_" + name, shown_if(with_atoms_, std::sqrt(atom_squares_)));
    if (frame_weight_ > 0.0) out.emplace_back("rmse_global_" + name, shown_if(with_frame_, std::sqrt(frame_squares_) / mean_atoms()));
    return out;
  }

 private:
  void reset() override {
    with_atoms_ = atom_weight_ > 0.0 && found(Label::atom_value);
    with_frame_ = frame_weight_ > 0.0 && found(Label::value);
    atom_squares_ = frame_squares_ = 0.0;
  }

  // An atom's weight multiplies the deviation, not its square.
  void add_atoms(const LossFrame& frame, const LossSeeds& seeds) {
    const double* const label = frame.label(Label::atom_value);
    const double* const weight = frame.label(Label::atom_weight);
    const double n = all_atoms() * model_.width;
    for (std::ptrdiff_t i = 0; i < frame.natoms; ++i) {
      if (!frame.counted[i]) continue;
      const double w = weights_ && weight != nullptr ? weight[i] : 1.0;
      for (std::ptrdiff_t k = i * model_.width; k < (i + 1) * model_.width; ++k) {
        const Cost c = squared(w * (frame.atoms[k] - label[k]));
        atom_squares_ += c.value / n;
        if (seeds.atoms != nullptr) seeds.atoms[k] += atom_weight_ * w * c.slope / n;
      }
    }
  }

  void add_frame(const LossFrame& frame, const LossSeeds& seeds) {
    const double* const label = frame.label(Label::value);
    const double n = frames() * model_.width;
    std::vector<double> slope = summed(frame, model_.width);
    for (int k = 0; k < model_.width; ++k) {
      double& of_k = slope[static_cast<std::size_t>(k)];
      const Cost c = squared(of_k - label[k]);
      frame_squares_ += c.value / n;
      of_k = frame_weight_ * c.slope / n;
    }
    add_to_atoms(frame, slope, seeds);
  }

  double frame_weight_ = 0.0, atom_weight_ = 0.0;
  bool weights_ = false;
  bool with_atoms_ = false, with_frame_ = false;
  double atom_squares_ = 0.0, frame_squares_ = 0.0;
};

}  // namespace

std::unique_ptr<Loss> tensor_loss(Section& section, const LossModel& model) { return std::make_unique<TensorLoss>(section, model); }

}  // namespace dpa2::train
