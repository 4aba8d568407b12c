#include "fold/fitting.hpp"

namespace dpa2 {

namespace {

const std::string fitting = "fitting_net.", hidden_layers = fitting + "filter_layers.networks.0.layers.";

}  // namespace

FoldedFitting fold_fitting(const FittingConfig& config, RawTensors& raw) {
  const std::size_t nhidden = config.neuron.size();
  FoldedFitting f;
  f.act = fold_activation(config.activation);
  for (std::size_t l = 0; l < nhidden; ++l) f.layers.push_back(fold_hidden(raw, hidden_layers + std::to_string(l)));
  f.out = fold_dense(raw, hidden_layers + std::to_string(nhidden));
  if (config.numb_fparam > 0) {
    f.fparam_avg = raw.matrix(fitting + "fparam_avg");
    f.fparam_inv_std = raw.matrix(fitting + "fparam_inv_std");
  }
  if (config.numb_aparam > 0 && !config.use_aparam_as_mask) {
    f.aparam_avg = raw.matrix(fitting + "aparam_avg");
    f.aparam_inv_std = raw.matrix(fitting + "aparam_inv_std");
  }
  if (config.dim_case_embd > 0) f.case_embd = raw.matrix(fitting + "case_embd");
  return f;
}

void unfold_fitting(const FittingConfig& config, const FoldedFitting& gradient, Weights& to) {
  for (std::size_t l = 0; l < gradient.layers.size(); ++l) unfold_hidden(gradient.layers[l], hidden_layers + std::to_string(l), to);
  unfold_dense(gradient.out, hidden_layers + std::to_string(config.neuron.size()), to);
}

}  // namespace dpa2
