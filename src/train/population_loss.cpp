// Populations of the two spins on atoms: their values and differences per atom, and the totals of frames.
#include <algorithm>
#include <array>
#include <cmath>

#include "error.hpp"
#include "train/batch_loss.hpp"

namespace dpa2::train {
namespace {

class PopulationLoss final : public BatchLoss {
 public:
  PopulationLoss(Section& section, const LossModel& model) : BatchLoss(section, model) {
    constexpr std::array<const char*, terms> names{"spin", "spin_total", "pop", "pop_alpha_total", "pop_beta_total"};
    for (std::size_t t = 0; t < terms; ++t) prefactors_[t] = section.prefactor(names[t], 1.0, 1.0, 0.0);
    function_ = section.word("loss_func", "smooth_mae", {"smooth_mae", "mae", "rmse"});
    metric_ = section.words("metric", {"mae"});
    beta_ = section.number("beta", 1.0, 0.0);
  }

  [[nodiscard]] std::vector<LabelSpec> labels() const override { return {{Label::atom_value, "atom_population", 2, true, true}}; }
  [[nodiscard]] bool survey() const override { return function_ == "rmse"; }
  void look(const LossFrame& frame) override {
    walk(frame, [&](Term term, double d, std::ptrdiff_t, double, double) { all_squares_[term] += d * d; });
  }

  void add(const LossFrame& frame, const LossSeeds& seeds) override {
    if (seeds.atoms != nullptr) std::fill_n(seeds.atoms, 2 * static_cast<std::ptrdiff_t>(frame.natoms), 0.0);
    walk(frame, [&](Term term, double d, std::ptrdiff_t atom, double alpha, double beta) {
      const Cost c = cost(term, d);
      sums_[term] += c.value;
      if (seeds.atoms == nullptr) return;
      const double slope = prefactors_[term].at(fraction()) * c.slope;
      for (std::ptrdiff_t i = atom < 0 ? 0 : atom; i < (atom < 0 ? frame.natoms : atom + 1); ++i) {
        if (!frame.counted[i]) continue;
        seeds.atoms[2 * i] += alpha * slope;
        seeds.atoms[2 * i + 1] += beta * slope;
      }
    });
    const std::vector<double> total = summed(frame, 2);
    spin_total_ += (total[0] - total[1]) / frames();
    const double* const label = frame.label(Label::atom_value);
    for (std::ptrdiff_t k = 0; k < 2 * static_cast<std::ptrdiff_t>(frame.natoms); ++k) {
      if (!frame.counted[k / 2]) continue;
      const double d = frame.atoms[k] - label[k];
      absolute_ += std::abs(d) / (2.0 * all_atoms());
      squares_ += d * d / (2.0 * all_atoms());
    }
  }

  [[nodiscard]] std::vector<double*> sums() override {
    std::vector<double*> out{&spin_total_, &absolute_, &squares_};
    for (double& sum : sums_) out.push_back(&sum);
    return out;
  }
  [[nodiscard]] std::vector<double*> survey_sums() override {
    std::vector<double*> out;
    for (double& sum : all_squares_) out.push_back(&sum);
    return out;
  }
  [[nodiscard]] double value() const override {
    double sum = 0.0;
    for (std::size_t t = 0; t < terms; ++t) sum += prefactors_[t].at(fraction()) * of_term(t);
    return sum;
  }
  [[nodiscard]] Parts parts() const override {
    constexpr std::array<const char*, terms> names{"spin_loss", "spin_total_loss", "pop_loss", "pop_alpha_total_loss",
                                                   "pop_beta_total_loss"};
    Parts out{{"spin_total", spin_total_}};
    for (std::size_t t = 0; t < terms; ++t) out.emplace_back(names[t], of_term(t));
    const auto show = [&](const char* name, double value) {
      if (std::find(metric_.begin(), metric_.end(), name) != metric_.end()) out.emplace_back(name, value);
    };
    show("mae", absolute_);
    show("rmse", std::sqrt(squares_));
    return out;
  }

 private:
  enum Term : std::size_t { spin, spin_total, pop, alpha_total, beta_total };
  static constexpr std::size_t terms = 5;

  void reset() override {
    all_squares_.fill(0.0);
    sums_.fill(0.0);
    spin_total_ = absolute_ = squares_ = 0.0;
  }

  /// f(term, deviation, atom or -1 for all of the frame, its derivative with respect to the first and the second population).
  template <class F>
  void walk(const LossFrame& frame, F f) const {
    const double* const label = frame.label(Label::atom_value);
    double alpha = 0.0, beta = 0.0;
    for (std::ptrdiff_t i = 0; i < frame.natoms; ++i) {
      if (!frame.counted[i]) continue;
      const double a = frame.atoms[2 * i] - label[2 * i], b = frame.atoms[2 * i + 1] - label[2 * i + 1];
      alpha += a;
      beta += b;
      f(spin, a - b, i, 1.0, -1.0);
      f(pop, a, i, 1.0, 0.0);
      f(pop, b, i, 0.0, 1.0);
    }
    f(spin_total, alpha - beta, -1, 1.0, -1.0);
    f(alpha_total, alpha, -1, 1.0, 0.0);
    f(beta_total, beta, -1, 0.0, 1.0);
  }

  /// Deviations that a term has in the batch.
  [[nodiscard]] double number(std::size_t term) const { return term == spin ? all_atoms() : term == pop ? 2.0 * all_atoms() : frames(); }
  /// Terms of atoms are divided by the atoms of a frame, the mean over the batch; totals are not.
  [[nodiscard]] double scale(std::size_t term) const { return term == spin || term == pop ? 1.0 / std::max(mean_atoms(), 1.0) : 1.0; }

  /// A root of a mean is taken over the batch, times the number of deviations. Here its part of the mean; slopes are final.
  [[nodiscard]] Cost cost(Term term, double d) const {
    Cost c = function_ == "mae" ? absolute(d) : smooth_absolute(d, beta_);
    if (function_ == "rmse") {
      const double root = std::sqrt(all_squares_[term] / number(term));
      c = {d * d / number(term), root > 0.0 ? d / root : 0.0};
    } else {
      c.value *= scale(term);
    }
    return {c.value, c.slope * scale(term)};
  }
  [[nodiscard]] double of_term(std::size_t term) const {
    return function_ == "rmse" ? std::sqrt(sums_[term]) * number(term) * scale(term) : sums_[term];
  }

  std::array<Prefactor, terms> prefactors_;
  std::string function_;
  std::vector<std::string> metric_;
  double beta_ = 1.0;
  std::array<double, terms> all_squares_{}, sums_{};
  double spin_total_ = 0.0, absolute_ = 0.0, squares_ = 0.0;
};

}  // namespace

std::unique_ptr<Loss> population_loss(Section& section, const LossModel& model) { return std::make_unique<PopulationLoss>(section, model); }

}  // namespace dpa2::train
