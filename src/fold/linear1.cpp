#include "fold/linear1.hpp"

namespace dpa2 {

namespace {

/// Calls f(input, repeat, first row, number of rows) for every input that the layer has, in the order of the columns.
template <class F>
void for_each_input(const RepformerConfig& config, const LayerFeatures& has, F&& f) {
  int from = 0;
  const auto input = [&](bool present, Linear1Input kind, int repeat, int width) {
    if (!present) return;
    f(kind, repeat, from, repeat * width);
    from += repeat * width;
  };
  input(!has.self, Linear1Input::g1, 1, config.g1_dim);
  input(has.conv && !has.out_conv, Linear1Input::conv, 1, config.g2_dim);
  input(has.grrg, Linear1Input::grrg, config.axis_neuron, config.g2_dim);
  input(has.drrd, Linear1Input::drrd, config.axis_neuron, config.g1_dim);
}

}  // namespace

FoldedLinear1 fold_linear1(const RepformerConfig& config, RawTensors& raw, const std::string& layer, const LayerFeatures& has) {
  const Matrix w = raw.matrix(layer + "linear1.matrix");
  FoldedLinear1 f;
  f.b = raw.matrix(layer + "linear1.bias");
  for_each_input(config, has, [&](Linear1Input input, int repeat, int from, int count) {
    f.pieces.push_back({input, repeat, rows(w, from, 1, count)});
  });
  return f;
}

void unfold_linear1(const RepformerConfig& config, const std::string& layer, const LayerFeatures& has, const FoldedLinear1& gradient,
                    Weights& to) {
  int width = 0;
  for_each_input(config, has, [&](Linear1Input, int, int from, int count) { width = from + count; });
  Matrix w(width, config.g1_dim);
  for_each_input(config, has, [&](Linear1Input input, int, int from, int count) {
    for (const FoldedLinear1::Piece& piece : gradient.pieces)
      if (piece.input == input && given(piece.w, count, config.g1_dim, name_of(input))) add_rows(w, piece.w, from, 1);
  });
  add(to, layer + "linear1.matrix", w);
  add(to, layer + "linear1.bias", gradient.b);
}

}  // namespace dpa2
