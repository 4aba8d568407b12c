// Densities of states and their running sums, of the frame and of its atoms.
#include <algorithm>
#include <cmath>

#include "error.hpp"
#include "train/batch_loss.hpp"

namespace dpa2::train {
namespace {

class DosLoss final : public BatchLoss {
 public:
  DosLoss(Section& section, const LossModel& model) : BatchLoss(section, model) {
    dos_.prefactor = section.prefactor("dos", 0.0, 0.0, 0.0);
    cdf_.prefactor = section.prefactor("cdf", 0.0, 0.0, 0.0);
    atom_dos_.prefactor = section.prefactor("ados", 1.0, 1.0, 0.0);
    atom_cdf_.prefactor = section.prefactor("acdf", 0.0, 0.0, 0.0);
    if (!of_frame() && !of_atoms())
      throw invalid_input("every term of the loss has a prefactor of zero at the start or in the limit: nothing would be learned; set ",
                          "start_pref_X and limit_pref_X of dos, cdf, ados or acdf");
  }

  [[nodiscard]] std::vector<LabelSpec> labels() const override {
    std::vector<LabelSpec> out;
    if (of_atoms()) out.push_back({Label::atom_value, "atom_dos", model_.width, true, false});
    if (of_frame()) out.push_back({Label::value, "dos", model_.width, false, false});
    return out;
  }

  void add(const LossFrame& frame, const LossSeeds& seeds) override {
    const std::ptrdiff_t width = model_.width;
    if (seeds.atoms != nullptr) std::fill_n(seeds.atoms, frame.natoms * width, 0.0);
    if (with_atoms_) {
      const double* const label = frame.label(Label::atom_value);
      for (std::ptrdiff_t i = 0; i < frame.natoms; ++i)
        if (frame.counted[i])
          add_spectrum(frame.atoms + i * width, label + i * width, all_atoms(), atom_dos_, atom_cdf_,
                       seeds.atoms == nullptr ? nullptr : seeds.atoms + i * width);
    }
    if (with_frame_) {
      std::vector<double> slope(static_cast<std::size_t>(width));
      add_spectrum(summed(frame, model_.width).data(), frame.label(Label::value), frames(), dos_, cdf_, slope.data());
      add_to_atoms(frame, slope, seeds);
    }
  }
  [[nodiscard]] std::vector<double*> sums() override { return {&dos_.squares, &cdf_.squares, &atom_dos_.squares, &atom_cdf_.squares}; }
  [[nodiscard]] double value() const override {
    double sum = 0.0;
    for (const Term* term : {&atom_dos_, &atom_cdf_, &dos_, &cdf_}) sum += term->prefactor.at(fraction()) * term->squares;
    return sum;
  }
  [[nodiscard]] Parts parts() const override {
    Parts out;
    const auto show = [&](const char* name, const Term& term, bool with, double atoms) {
      if (term.prefactor.on()) out.emplace_back(name, shown_if(with, std::sqrt(term.squares) / atoms));
    };
    show("rmse_local_dos", atom_dos_, with_atoms_, 1.0);
    show("rmse_local_cdf", atom_cdf_, with_atoms_, 1.0);
    show("rmse_global_dos", dos_, with_frame_, mean_atoms());
    show("rmse_global_cdf", cdf_, with_frame_, mean_atoms());
    return out;
  }

 private:
  struct Term {
    Prefactor prefactor;
    double squares = 0.0;  ///< their mean over the labels of the batch
  };

  [[nodiscard]] bool of_atoms() const { return atom_dos_.prefactor.on() || atom_cdf_.prefactor.on(); }
  [[nodiscard]] bool of_frame() const { return dos_.prefactor.on() || cdf_.prefactor.on(); }

  void reset() override {
    with_atoms_ = of_atoms() && found(Label::atom_value);
    with_frame_ = of_frame() && found(Label::value);
    for (Term* const term : {&dos_, &cdf_, &atom_dos_, &atom_cdf_}) term->squares = 0.0;
  }

  // One spectrum of the `count` in the batch. A running sum at k depends on all values up to k: its slopes are added from the end.
  void add_spectrum(const double* value, const double* label, double count, Term& plain, Term& running, double* slope) const {
    const std::ptrdiff_t width = model_.width;
    const double n = count * static_cast<double>(width);
    if (plain.prefactor.on())
      for (std::ptrdiff_t k = 0; k < width; ++k) {
        const Cost c = squared(value[k] - label[k]);
        plain.squares += c.value / n;
        if (slope != nullptr) slope[k] += plain.prefactor.at(fraction()) * c.slope / n;
      }
    if (!running.prefactor.on()) return;
    std::vector<double> slopes(static_cast<std::size_t>(width));
    double sum = 0.0;
    for (std::ptrdiff_t k = 0; k < width; ++k) {
      sum += value[k] - label[k];
      const Cost c = squared(sum);
      running.squares += c.value / n;
      slopes[static_cast<std::size_t>(k)] = running.prefactor.at(fraction()) * c.slope / n;
    }
    if (slope == nullptr) return;
    double above = 0.0;
    for (std::ptrdiff_t k = width - 1; k >= 0; --k) {
      above += slopes[static_cast<std::size_t>(k)];
      slope[k] += above;
    }
  }

  Term dos_, cdf_, atom_dos_, atom_cdf_;
  bool with_atoms_ = false, with_frame_ = false;
};

}  // namespace

std::unique_ptr<Loss> dos_loss(Section& section, const LossModel& model) { return std::make_unique<DosLoss>(section, model); }

}  // namespace dpa2::train
