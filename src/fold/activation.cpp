#include "fold/activation.hpp"

#include <cmath>

namespace dpa2 {

namespace {

struct Functions {
  static double exp(double x) { return std::exp(x); }
  static double tanh(double x) { return std::tanh(x); }
  static double log1p(double x) { return std::log1p(x); }
};

}  // namespace

FoldedActivation fold_activation(const ActivationConfig& config) {
  const double threshold = config.threshold, s = 1.0 / (1.0 + std::exp(-threshold));
  return {config.kind, {threshold, s + threshold * s * (1.0 - s), threshold * s}};
}

double evaluate(const FoldedActivation& act, double x) {
  double y = 0, dy = 0;
  evaluate(act, x, y, dy);
  return y;
}

void evaluate(const FoldedActivation& act, double x, double& y, double& dy) {
  switch (act.kind) {
#define DPA2_CASE(A)                                                       \
  case Activation::A:                                                      \
    math::activate<Activation::A, Functions, double>(x, act.silut, y, dy); \
    break;
    DPA2_CASE(linear)
    DPA2_CASE(tanh) DPA2_CASE(relu) DPA2_CASE(relu6) DPA2_CASE(sigmoid) DPA2_CASE(softplus) DPA2_CASE(gelu) DPA2_CASE(silu) DPA2_CASE(silut)
#undef DPA2_CASE
  }
}

}  // namespace dpa2
