// What all losses share: the batch, reading labels, and what a single deviation costs.
#pragma once

#include <cmath>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "train/loss.hpp"
#include "train/section.hpp"

namespace dpa2::train {

/// What a deviation costs, and the derivative of that.
struct Cost {
  double value, slope;
};

inline Cost squared(double x) { return {x * x, 2.0 * x}; }
/// The slope at zero is zero.
inline Cost absolute(double x) { return {std::abs(x), static_cast<double>((x > 0.0) - (x < 0.0))}; }
/// Quadratic up to delta, linear beyond.
inline Cost huber(double x, double delta) {
  const Cost a = absolute(x);
  return a.value <= delta ? Cost{0.5 * x * x, x} : Cost{delta * (a.value - 0.5 * delta), delta * a.slope};
}
/// The same divided by delta; at delta 0 the absolute value.
inline Cost smooth_absolute(double x, double delta) {
  const Cost a = absolute(x);
  return a.value < delta ? Cost{0.5 * x * x / delta, x / delta} : Cost{a.value - 0.5 * delta, a.slope};
}

using Parts = std::vector<std::pair<std::string, double>>;

class BatchLoss : public Loss {
 public:
  explicit BatchLoss(Section& section, const LossModel& model);
  void begin(const LossBatch& batch) override;

 protected:
  /// Sums of the last batch to zero; what the new one asks for is known.
  virtual void reset() = 0;
  [[nodiscard]] bool found(Label label) const { return batch_.found[static_cast<std::size_t>(label)]; }
  /// Throws where a frame has no atom to divide by; `what` is named.
  void need_atoms(const std::string& what) const;
  [[nodiscard]] double frames() const { return static_cast<double>(batch_.counted.size()); }
  [[nodiscard]] double atoms(const LossFrame& frame) const { return batch_.counted[static_cast<std::size_t>(frame.index)]; }
  /// Atoms that count, of the batch; 1 where there is none, for sums that are zero then.
  [[nodiscard]] double all_atoms() const { return all_atoms_; }
  /// Of a frame of this batch, on average.
  [[nodiscard]] double mean_atoms() const { return mean_atoms_; }
  /// The learning rate as a fraction of the first one.
  [[nodiscard]] double fraction() const { return fraction_; }

  LossModel model_;

 private:
  std::optional<double> starter_;
  LossBatch batch_;
  double all_atoms_ = 1.0, mean_atoms_ = 0.0, fraction_ = 1.0;
};

/// Sums of the values of the atoms that count: (width).
std::vector<double> summed(const LossFrame& frame, int width);
/// The derivative with respect to their sum (width), to each of them.
void add_to_atoms(const LossFrame& frame, const std::vector<double>& slope, const LossSeeds& seeds);

/// A number to display: NaN where the label is missing.
inline double shown_if(bool found, double value) { return found ? value : std::numeric_limits<double>::quiet_NaN(); }

std::unique_ptr<Loss> energy_loss(Section& section, const LossModel& model);
std::unique_ptr<Loss> tensor_loss(Section& section, const LossModel& model);
std::unique_ptr<Loss> dos_loss(Section& section, const LossModel& model);
std::unique_ptr<Loss> property_loss(Section& section, const LossModel& model);
std::unique_ptr<Loss> population_loss(Section& section, const LossModel& model);

}  // namespace dpa2::train
