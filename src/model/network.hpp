// The hidden layers of a network in double on many rows: what is asked of a model beside evaluations.
#pragma once

#include <cstddef>
#include <vector>

#include "cpu/activation.hpp"
#include "fold/dense.hpp"

namespace dpa2 {

/// Layers y = phi(x W + b) * idt + skip (theory 4), evaluated with the kernels of this processor.
class Network {
 public:
  /// On inputs of `in` numbers.
  Network(int in, const std::vector<FoldedHidden>& layers, const FoldedActivation& act);
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
