#include "fold/three_body.hpp"

namespace dpa2 {

FoldedThreeBody fold_three_body(const Config& config, RawTensors& raw, const Matrix& tebd) {
  const RepinitConfig& r = config.repinit;
  const std::string block = "descriptor.repinit_three_body";
  FoldedThreeBody f;
  f.statistics = fold_statistics(config, raw, block, r.three_body_rcut, r.three_body_rcut_smth);
  f.net = fold_embedding_net(config, raw, {block, r.three_body_neuron.size(), false, config.three_body_table}, tebd);
  f.inv_nsel_squared = 1.0 / (static_cast<double>(r.three_body_sel) * r.three_body_sel);
  return f;
}

}  // namespace dpa2
