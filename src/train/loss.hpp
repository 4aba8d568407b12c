// Losses: what a prediction costs beside its labels, and the derivatives of the cost, the seeds of the gradient. One frame after the
// other; everything that joins the frames of a batch (numbers of frames and atoms) is known before the first.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "heads/output.hpp"
#include "schema/config.hpp"
#include "schema/weights.hpp"

namespace dpa2::train {

/// Labels of a frame of natoms atoms. What "value" is depends on the model: the dipole, the density of states, ...
enum class Label { energy, force, virial, atom_energy, atom_energy_coeff, atom_pref, drdq, value, atom_value, atom_weight };
inline constexpr std::size_t label_count = 10;

/// A label that a loss reads: under which name deepmd-kit stores it, and its numbers in a frame.
struct LabelSpec {
  Label label;
  std::string name;
  int width;              ///< numbers per frame, or per atom; atom_pref 3, a weight per component; drdq 3 q
  bool per_atom = false;  ///< then natoms * width numbers
  bool required = false;  ///< otherwise its term is left out where it is missing
};

/// The model as a loss sees it.
struct LossModel {
  FittingType kind = FittingType::ener;
  std::string property;                  ///< its name, of property models
  int width = 1;                         ///< numbers per atom
  Reduction reduction = Reduction::sum;  ///< of the atoms' values to that of the frame; none: population
  std::vector<double> bias, deviation;   ///< out_bias and out_std of the first type (width); only properties read them
};

/// What a loss sees of a model that is no combination; weights: only out_bias and out_std of properties are read.
LossModel loss_model(const Config& config, const Weights& weights);

/// What is known of a batch before its first frame.
struct LossBatch {
  double learning_rate = 0.0;
  std::vector<int> counted;               ///< per frame, of all: atoms whose type is neither negative nor in atom_exclude_types
  std::array<bool, label_count> found{};  ///< by Label: whether the batch has it
};

/// What the model says of a frame, and its labels.
struct LossFrame {
  int index = 0, natoms = 0;                        ///< in the whole batch; its places, with and without an atom
  const bool* counted = nullptr;                    ///< (natoms): see LossBatch
  const double* atoms = nullptr;                    ///< (natoms, width): the atoms' values, biases included
  const double* force = nullptr;                    ///< (natoms, 3); null where forces() is false
  const double* virial = nullptr;                   ///< (9), -dE/dstrain; null where virial() is false
  std::array<const double*, label_count> labels{};  ///< by Label; null where missing

  [[nodiscard]] const double* label(Label which) const { return labels[static_cast<std::size_t>(which)]; }
};

/// Derivatives of the loss of the batch with respect to what the model says of a frame, all written. Null: only the sums are wanted.
struct LossSeeds {
  double* atoms = nullptr;   ///< (natoms, width); zero for atoms that do not count
  double* force = nullptr;   ///< (natoms, 3); may be null where forces() is false
  double* virial = nullptr;  ///< (9); may be null where virial() is false
};

/// A loss and its sums over the frames of a batch. One thread at a time.
///
///   loss->begin(batch);
///   if (loss->survey()) for (frame : batch) loss->look(frame);
///   for (frame : batch) loss->add(frame, seeds);
///   loss->value(), loss->parts()
class Loss {
 public:
  virtual ~Loss() = default;

  /// The labels that it reads, whether or not a batch has them.
  [[nodiscard]] virtual std::vector<LabelSpec> labels() const = 0;

  /// Starts a batch. Throws invalid_input: no frames, a label that is required, a frame without atoms whose mean is asked for.
  virtual void begin(const LossBatch& batch) = 0;
  /// Whether the batch needs the forces, the virial.
  [[nodiscard]] virtual bool forces() const { return false; }
  [[nodiscard]] virtual bool virial() const { return false; }
  /// Whether look() has to see every frame before the first add(): roots of sums over the batch.
  [[nodiscard]] virtual bool survey() const { return false; }
  virtual void look(const LossFrame&) {}
  /// Adds a frame to the sums, each once, in any order, and writes its seeds.
  virtual void add(const LossFrame& frame, const LossSeeds& seeds) = 0;

  /// What add() sums up. The loss of a batch whose frames are added in several places follows from the sums of these over all places.
  [[nodiscard]] virtual std::vector<double*> sums() = 0;
  /// The same of look().
  [[nodiscard]] virtual std::vector<double*> survey_sums() { return {}; }

  /// The loss of the frames that were added.
  [[nodiscard]] virtual double value() const = 0;
  /// What deepmd-kit displays of it, by its names: rmse, rmse_e, ...; NaN where the label is missing.
  [[nodiscard]] virtual std::vector<std::pair<std::string, double>> parts() const = 0;
};

/// From the `loss` section of an input, JSON text, with deepmd-kit's keys and defaults; beside them `starter_learning_rate`, the
/// start of the schedule that the prefactors follow (missing: the learning rate of the batch, which is then at its start).
/// Throws invalid_input: unknown keys, bad values, options that exclude each other, a type that is not for the model; unsupported:
/// losses of models that are not here, of Hessians.
std::unique_ptr<Loss> make_loss(std::string_view section, const LossModel& model);

}  // namespace dpa2::train
