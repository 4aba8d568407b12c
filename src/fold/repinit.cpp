#include "fold/repinit.hpp"

#include <algorithm>

namespace dpa2 {

namespace {

const std::string repinit_block = "descriptor.repinit";

EmbeddingOptions repinit_network(const Config& config) {
  const RepinitConfig& r = config.repinit;
  return {repinit_block, r.neuron.size(), r.type_one_side, config.repinit_table};
}

}  // namespace

FoldedRepinit fold_repinit(const Config& config, RawTensors& raw, const Matrix& tebd) {
  const RepinitConfig& r = config.repinit;
  FoldedRepinit f;
  f.statistics = fold_statistics(config, raw, repinit_block, r.rcut, r.rcut_smth);
  f.net = fold_embedding_net(config, raw, repinit_network(config), tebd);
  f.inv_nsel = 1.0 / r.nsel;
  return f;
}

FoldedRepinit fold_se_e2_a(const Config& config, RawTensors& raw) {
  const RepinitConfig& r = config.repinit;
  FoldedRepinit f;
  f.statistics = fold_statistics(config, raw, repinit_block, r.rcut, r.rcut_smth);
  EmbeddingOptions options = repinit_network(config);
  const int combinations = r.type_one_side ? config.ntypes() : config.ntypes() * config.ntypes();
  for (; options.network < combinations; ++options.network) {
    f.nets.push_back(fold_embedding_net(config, raw, options, Matrix(1, 0)));  // none of them sees types
    f.nets.back().typed = false;
  }
  f.inv_nsel = 1.0 / r.nsel;
  return f;
}

void unfold_repinit(const Config& config, RawTensors& raw, const Matrix& tebd, const FoldedRepinit& gradient, Weights& to,
                    Matrix& tebd_gradient) {
  unfold_embedding_net(config, raw, repinit_network(config), tebd, gradient.net, to, tebd_gradient);
}

Matrix fold_padded_embedding(const Config& config, const FoldedRepinit& repinit) {
  const Matrix& pad = repinit.statistics.pad;
  if (std::all_of(pad.a.begin(), pad.a.end(), [](double x) { return x == 0.0; })) return Matrix();
  const int ntypes = config.ntypes();
  Matrix out(ntypes * ntypes, repinit.net.layers.back().out);
  for (int row = 0; row < out.rows; ++row) {
    const int combination = config.repinit.type_one_side ? row / ntypes : row;
    const Matrix g = evaluate(repinit.net, pad(row % ntypes, 0), combination);
    // The switch of a padded slot is zero, and with it the gate of a smooth model.
    const bool gated = config.repinit.strip && !config.smooth;
    for (int c = 0; c < out.cols; ++c) out(row, c) = g(0, c) * (gated ? 1.0 + repinit.net.gate(combination, c) : 1.0);
  }
  return out;
}

}  // namespace dpa2
