// The fitting network and the parameters that it sees beside the descriptor (theory 9.1).
#pragma once

#include <string>
#include <vector>

#include "fold/dense.hpp"

namespace dpa2 {

/// What the model does not have, or its network does not see, is empty.
struct FoldedFitting {
  FoldedActivation act;
  std::vector<FoldedHidden> layers;
  FoldedDense out;                                                           ///< (width of the last hidden layer, width of the output)
  Matrix fparam_avg, fparam_inv_std, aparam_avg, aparam_inv_std, case_embd;  ///< one row each

  template <class F>
  void for_each(const std::string& at, F& f) const {
    act.for_each(at + ".activation", f);
    for (std::size_t l = 0; l < layers.size(); ++l) layers[l].for_each(at + ".layers." + std::to_string(l), f);
    out.for_each(at + ".out", f);
    give(f, at + ".fparam_avg", fparam_avg);
    give(f, at + ".fparam_inv_std", fparam_inv_std);
    give(f, at + ".aparam_avg", aparam_avg);
    give(f, at + ".aparam_inv_std", aparam_inv_std);
    give(f, at + ".case_embd", case_embd);
  }
};

FoldedFitting fold_fitting(const FittingConfig& config, RawTensors& raw);
/// The adjoint, `+=`: of the network. What it sees beside the descriptor are statistics and constants.
void unfold_fitting(const FittingConfig& config, const FoldedFitting& gradient, Weights& to);

}  // namespace dpa2
