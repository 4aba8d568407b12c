#include "fold/three_body.hpp"

namespace dpa2 {

namespace {

const std::string three_body_block = "descriptor.repinit_three_body";

EmbeddingOptions three_body_network(const Config& config) {
  const RepinitConfig& r = config.repinit;
  return {three_body_block, r.three_body_neuron.size(), false, config.three_body_table};
}

}  // namespace

FoldedThreeBody fold_three_body(const Config& config, RawTensors& raw, const Matrix& tebd) {
  const RepinitConfig& r = config.repinit;
  FoldedThreeBody f;
  f.statistics = fold_statistics(config, raw, three_body_block, r.three_body_rcut, r.three_body_rcut_smth);
  f.net = fold_embedding_net(config, raw, three_body_network(config), tebd);
  f.inv_nsel_squared = 1.0 / (static_cast<double>(r.three_body_sel) * r.three_body_sel);
  return f;
}

void unfold_three_body(const Config& config, RawTensors& raw, const Matrix& tebd, const FoldedThreeBody& gradient, Weights& to,
                       Matrix& tebd_gradient) {
  unfold_embedding_net(config, raw, three_body_network(config), tebd, gradient.net, to, tebd_gradient);
}

}  // namespace dpa2
