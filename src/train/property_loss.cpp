// Properties of frames, in units of their deviation from data; those that grow with the number of atoms, per atom.
#include <algorithm>
#include <cmath>

#include "error.hpp"
#include "train/batch_loss.hpp"

namespace dpa2::train {
namespace {

/// What keeps a relative deviation finite where the label is zero.
constexpr double relative_shift = 1e-3;

class PropertyLoss final : public BatchLoss {
 public:
  PropertyLoss(Section& section, const LossModel& model) : BatchLoss(section, model) {
    function_ = section.word("loss_func", "smooth_mae", {"smooth_mae", "mae", "mse", "rmse", "mape"});
    metric_ = section.words("metric", {"mae"});
    beta_ = section.number("beta", 1.0, 0.0);
    for (const double deviation : model.deviation)
      if (deviation == 0.0) throw invalid_input("the model's out_std is zero: the loss of a property is in units of it");
  }

  [[nodiscard]] std::vector<LabelSpec> labels() const override { return {{Label::value, model_.property, model_.width, false, true}}; }
  [[nodiscard]] bool survey() const override { return function_ == "rmse"; }
  void look(const LossFrame& frame) override {
    const std::vector<double> sum = summed(frame, model_.width);
    for (int k = 0; k < model_.width; ++k) {
      const double d = (sum[static_cast<std::size_t>(k)] / atoms(frame) - label(frame, k)) / deviation(k);
      all_squares_ += d * d;
    }
  }

  void add(const LossFrame& frame, const LossSeeds& seeds) override {
    if (seeds.atoms != nullptr) std::fill_n(seeds.atoms, static_cast<std::ptrdiff_t>(frame.natoms) * model_.width, 0.0);
    std::vector<double> slope(static_cast<std::size_t>(model_.width));
    const std::vector<double> sum = summed(frame, model_.width);
    for (int k = 0; k < model_.width; ++k) {
      const double value = sum[static_cast<std::size_t>(k)] / atoms(frame), wanted = label(frame, k);
      const Cost c = cost(value - wanted, wanted, deviation(k));
      sum_ += c.value;
      slope[static_cast<std::size_t>(k)] = c.slope / atoms(frame);
      smooth_ += smooth_absolute(value - wanted, beta_).value / number();
      absolute_ += std::abs(value - wanted) / number();
      squares_ += (value - wanted) * (value - wanted) / number();
      relative_ += std::abs((value - wanted) / (wanted + relative_shift)) / number();
    }
    add_to_atoms(frame, slope, seeds);
  }
  [[nodiscard]] std::vector<double*> sums() override { return {&sum_, &smooth_, &absolute_, &squares_, &relative_}; }
  [[nodiscard]] std::vector<double*> survey_sums() override { return {&all_squares_}; }
  [[nodiscard]] double value() const override { return function_ == "rmse" ? std::sqrt(sum_) : sum_; }
  [[nodiscard]] Parts parts() const override {
    Parts out;
    const auto show = [&](const char* name, double value) {
      if (std::find(metric_.begin(), metric_.end(), name) != metric_.end()) out.emplace_back(name, value);
    };
    show("smooth_mae", smooth_);
    show("mae", absolute_);
    show("mse", squares_);
    show("rmse", std::sqrt(squares_));
    show("mape", relative_);
    return out;
  }

 private:
  void reset() override {
    need_atoms(model_.property);
    sum_ = all_squares_ = smooth_ = absolute_ = squares_ = relative_ = 0.0;
  }

  [[nodiscard]] double number() const { return frames() * model_.width; }
  [[nodiscard]] double deviation(int k) const { return model_.deviation.at(static_cast<std::size_t>(k)); }
  /// Both of the mean over the atoms: the label of a sum is divided by their number.
  [[nodiscard]] double label(const LossFrame& frame, int k) const {
    return frame.label(Label::value)[k] / (model_.reduction == Reduction::sum ? atoms(frame) : 1.0);
  }

  /// The root of a mean of squares is taken over the batch: its sum was seen by look(), and sum_ gathers the mean.
  [[nodiscard]] Cost cost(double d, double label, double deviation) const {
    if (function_ == "mape") {
      const double scale = 1.0 / (label + relative_shift);
      const Cost c = absolute(d * scale);
      return {c.value / number(), c.slope * scale / number()};
    }
    const double x = d / deviation;
    Cost c = squared(x);
    if (function_ == "smooth_mae") c = smooth_absolute(x, beta_);
    if (function_ == "mae") c = absolute(x);
    if (function_ == "rmse") {
      const double root = std::sqrt(all_squares_ / number());
      c.value /= number();
      c.slope = root > 0.0 ? x / (number() * root) : 0.0;
    }
    return {c.value, c.slope / deviation};
  }

  std::string function_;
  std::vector<std::string> metric_;
  double beta_ = 1.0;
  double sum_ = 0.0, all_squares_ = 0.0;
  double smooth_ = 0.0, absolute_ = 0.0, squares_ = 0.0, relative_ = 0.0;
};

}  // namespace

std::unique_ptr<Loss> property_loss(Section& section, const LossModel& model) { return std::make_unique<PropertyLoss>(section, model); }

}  // namespace dpa2::train
