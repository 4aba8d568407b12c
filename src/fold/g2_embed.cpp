#include "fold/g2_embed.hpp"

namespace dpa2 {

namespace {

const std::string repformers = "descriptor.repformers";

}  // namespace

FoldedG2Embed fold_g2_embed(const Config& config, RawTensors& raw) {
  const RepformerConfig& r = config.repformer;
  FoldedG2Embed f;
  f.statistics = fold_statistics(config, raw, repformers, r.rcut, r.rcut_smth);
  f.inv_rcut = 1.0 / r.rcut;
  f.dense = fold_dense(raw, repformers + ".g2_embd");
  return f;
}

void unfold_g2_embed(const FoldedG2Embed& gradient, Weights& to) { unfold_dense(gradient.dense, repformers + ".g2_embd", to); }

}  // namespace dpa2
