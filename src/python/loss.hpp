// Labels of a batch from Python's arrays, and losses of predictions.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <array>
#include <map>
#include <string>

#include "train/loss.hpp"

namespace dpa2::python {

/// The arrays of a batch's labels, each (frames, ...), by the names that a loss has for them; others are left alone. Holds them.
class LabelArrays {
 public:
  /// Throws invalid_input where an array has the wrong size.
  LabelArrays(const train::Loss& loss, const pybind11::dict& labels, pybind11::ssize_t frames, pybind11::ssize_t natoms);

  /// By Label: whether the batch has it.
  [[nodiscard]] std::array<bool, train::label_count> found() const;
  /// Those of a frame; null where there is none. Needs no interpreter.
  [[nodiscard]] std::array<const double*, train::label_count> frame(pybind11::ssize_t f) const;

 private:
  struct Rows {
    const double* data = nullptr;
    pybind11::ssize_t width = 0;
  };
  std::array<Rows, train::label_count> rows_;
  std::vector<pybind11::array> held_;
};

/// A Python dictionary of what a loss displays.
pybind11::dict parts_of(const train::Loss& loss);

void register_loss(pybind11::module_& m);

}  // namespace dpa2::python
