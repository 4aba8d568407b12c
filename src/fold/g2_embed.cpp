#include "fold/g2_embed.hpp"

namespace dpa2 {

FoldedG2Embed fold_g2_embed(const Config& config, RawTensors& raw) {
  const RepformerConfig& r = config.repformer;
  const std::string block = "descriptor.repformers";
  FoldedG2Embed f;
  f.statistics = fold_statistics(config, raw, block, r.rcut, r.rcut_smth);
  f.inv_rcut = 1.0 / r.rcut;
  f.dense = fold_dense(raw, block + ".g2_embd");
  return f;
}

}  // namespace dpa2
