#include "fold/linear1.hpp"

namespace dpa2 {

FoldedLinear1 fold_linear1(const RepformerConfig& config, RawTensors& raw, const std::string& layer, const LayerFeatures& has) {
  const Matrix w = raw.matrix(layer + "linear1.matrix");
  FoldedLinear1 f;
  f.b = raw.matrix(layer + "linear1.bias");
  int from = 0;
  const auto piece = [&](bool present, Linear1Input input, int repeat, int width) {
    if (!present) return;
    f.pieces.push_back({input, repeat, rows(w, from, 1, repeat * width)});
    from += repeat * width;
  };
  piece(!has.self, Linear1Input::g1, 1, config.g1_dim);
  piece(has.conv && !has.out_conv, Linear1Input::conv, 1, config.g2_dim);
  piece(has.grrg, Linear1Input::grrg, config.axis_neuron, config.g2_dim);
  piece(has.drrd, Linear1Input::drrd, config.axis_neuron, config.g1_dim);
  return f;
}

}  // namespace dpa2
