// An activation function with its constants, in double.
#pragma once

#include <string>

#include "fold/matrix.hpp"
#include "math/activation.hpp"
#include "schema/config.hpp"

namespace dpa2 {

struct FoldedActivation {
  Activation kind = Activation::linear;
  math::Silut<double> silut{};

  template <class F>
  void for_each(const std::string& name, F& f) const {
    Matrix m(1, 4);
    m.a = {static_cast<double>(static_cast<int>(kind)), silut.threshold, silut.slope, silut.offset};
    f(name, m);
  }
};

FoldedActivation fold_activation(const ActivationConfig& config);
/// phi(x)
double evaluate(const FoldedActivation& act, double x);
/// y = phi(x), dy = phi'(x)
void evaluate(const FoldedActivation& act, double x, double& y, double& dy);

}  // namespace dpa2
