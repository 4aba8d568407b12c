// The hidden layers of a network in double on many rows: what is asked of a model beside evaluations.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "cpu/activation.hpp"
#include "schema/config.hpp"
#include "schema/weights.hpp"

namespace dpa2 {

/// The tensor `name`; throws model_file_error where it is missing or has another shape.
const std::vector<double>& shaped(const Weights& weights, const std::string& name, const std::vector<std::int64_t>& shape);

/// Layers y = phi(x W + b) * idt + skip (theory 4), evaluated with the kernels of this processor.
class Network {
 public:
  /// Layers `prefix`.layers.0, 1, ... of the widths `widths`, on inputs of `in` numbers. Throws model_file_error for weights that
  /// are missing or do not fit.
  Network(const Weights& weights, const std::string& prefix, int in, const std::vector<int>& widths, bool resnet_dt,
          const ActivationConfig& activation);
  int in() const { return in_; }
  int out() const { return layers_.empty() ? in_ : layers_.back().out; }

  /// y (n, out) = the network on x (n, in)
  void values(std::ptrdiff_t n, const double* x, double* y) const { run(1, n, x, y); }
  /// y (3, n, out) = values, first and second derivatives along curves that have x (3, n, in)
  void jets(std::ptrdiff_t n, const double* x, double* y) const { run(3, n, x, y); }

 private:
  struct Layer {
    int in, out, width, skip;       // width: out, padded
    std::vector<double> w, b, idt;  // (in, width), (width), (width) or empty
  };
  void run(int parts, std::ptrdiff_t n, const double* x, double* y) const;

  int in_;
  ActivationSpec<double> act_;
  std::vector<Layer> layers_;
};

}  // namespace dpa2
