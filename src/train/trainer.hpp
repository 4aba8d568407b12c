// The gradient of a loss on a batch of frames to every parameter of a model (theory 15).
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "schema/weights.hpp"
#include "train/loss.hpp"

namespace dpa2::train {

/// Frames of one number of atoms. Parameters are null where the model takes none, or has a default; labels where they are missing.
struct Batch {
  int nframes = 0, natoms = 0;
  const double* coords = nullptr;                   ///< (nframes, natoms, 3), angstrom
  const int* types = nullptr;                       ///< (nframes, natoms), negative: no atom
  const double* boxes = nullptr;                    ///< (nframes, 3, 3), angstrom, rows are cell vectors; null: open
  const double* fparam = nullptr;                   ///< (nframes, numb_fparam)
  const double* aparam = nullptr;                   ///< (nframes, natoms, numb_aparam)
  std::array<const double*, label_count> labels{};  ///< by Label: (nframes, .) with the numbers that LabelSpec says
  int first = 0;                                    ///< of a batch whose other frames are elsewhere: how many come before these

  /// By Label: whether it has it.
  [[nodiscard]] std::array<bool, label_count> found() const;
};

struct LossValue {
  double value = 0;
  std::vector<std::pair<std::string, double>> parts;  ///< see Loss::parts
};

struct LossGradient : LossValue {
  Weights gradient;  ///< of every parameter, by its canonical name
};

class Engine;

/// A model whose weights may change from one batch to the next. Calls come one at a time.
class Trainer {
 public:
  /// precision: "float64" or "float32", of the kernels; empty: the model's own. Throws unsupported for models that have no parameters
  /// which could be trained: compressed ones; linear combinations.
  Trainer(Config config, Weights weights, const std::string& precision, int threads);
  ~Trainer();

  [[nodiscard]] const Config& config() const noexcept { return config_; }
  /// Takes other values of parameters, by canonical names and in their shapes; those that are not named stay. Throws invalid_input for
  /// names and shapes that the model does not have, and for numbers that are not finite. What it throws leaves the values as they were.
  void assign(Weights values);
  /// Throws invalid_input for bad structures, missing labels and parameters, and where the loss or its gradient is not finite; what it
  /// throws leaves the trainer as it was.
  LossGradient gradient(const Batch& batch, Loss& loss, double learning_rate);
  /// The same without the gradient: a quarter of the work.
  LossValue value(const Batch& batch, Loss& loss, double learning_rate);

  // The same where some frames of a batch are elsewhere. Between begin() of the loss, with all of the batch, and its value() the sums of
  // all places are to be put into the loss, those of look() before sweep().

  /// Per frame: how many atoms count. Throws invalid_input for a batch without frames or without parameters that the model needs.
  std::vector<int> counted(const Batch& batch);
  /// Has the loss look at the frames, if it asks for that.
  void look(const Batch& batch, Loss& loss);
  /// Adds the frames to the loss; what they give to the gradient.
  Weights sweep(const Batch& batch, Loss& loss);
  /// Adds the frames to the loss, and no more.
  void add(const Batch& batch, Loss& loss);
  /// Bytes that the buffers hold.
  [[nodiscard]] std::size_t bytes();

 private:
  /// The engine, with a model: the last assign() may have left none.
  Engine& engine();

  Config config_;
  Weights weights_;
  std::unique_ptr<Engine> engine_;
};

}  // namespace dpa2::train
