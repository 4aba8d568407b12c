#include "fold/embedding_net.hpp"

#include <algorithm>
#include <utility>

namespace dpa2 {

Matrix type_pairs(const Matrix& tebd, bool one_side) {
  if (one_side) return tebd;
  const int ntypes = tebd.rows, d = tebd.cols;
  Matrix x(ntypes * ntypes, 2 * d);
  for (int row = 0; row < x.rows; ++row)
    for (int c = 0; c < d; ++c) {
      x(row, c) = tebd(row / ntypes, c);
      x(row, d + c) = tebd(row % ntypes, c);
    }
  return x;
}

void unfold_type_pairs(const Matrix& gradient, bool one_side, Matrix& tebd_gradient) {
  if (one_side) return add(tebd_gradient, gradient);
  const int ntypes = tebd_gradient.rows, d = tebd_gradient.cols;
  for (int row = 0; row < gradient.rows; ++row)
    for (int c = 0; c < d; ++c) {
      tebd_gradient(row / ntypes, c) += gradient(row, c);
      tebd_gradient(row % ntypes, c) += gradient(row, d + c);
    }
}

namespace {

const std::string strip_network = ".filter_layers_strip.networks.0.layers.";

std::string main_network(const EmbeddingOptions& options) {
  return options.block + ".filter_layers.networks." + std::to_string(options.network) + ".layers.";
}

FoldedTable fold_table(const TableConfig& grid, Tensor coefficients) {
  FoldedTable t;
  t.nodes = Matrix(1, static_cast<int>(grid.intervals()) + 1);
  int k = 0;
  std::int64_t cell = 0;
  for (const auto& [count, width] : grid.segments)
    for (int i = 0; i < count; ++i, cell += width) t.nodes(0, k++) = grid.lower + grid.step * static_cast<double>(cell);
  t.nodes(0, k) = grid.lower + grid.step * static_cast<double>(cell);
  t.coefficients = std::move(coefficients);
  return t;
}

/// A table at s: polynomials inside, straight lines beyond its ends.
Matrix evaluate(const FoldedTable& table, double s, int curve) {
  const std::vector<double>& nodes = table.nodes.a;
  const double within = std::min(std::max(s, nodes.front()), nodes.back());
  const auto above = std::upper_bound(nodes.begin() + 1, nodes.end() - 1, within);
  const std::size_t n = static_cast<std::size_t>(above - nodes.begin()) - 1;
  const double length = nodes[n + 1] - nodes[n], u = (within - nodes[n]) / length, beyond = (s - within) / length;
  const std::size_t intervals = nodes.size() - 1, channels = static_cast<std::size_t>(table.coefficients.shape[3]);
  const std::size_t terms = static_cast<std::size_t>(table.coefficients.shape[2]);
  const double* a = table.coefficients.data.data() + (static_cast<std::size_t>(curve) * intervals + n) * terms * channels;
  Matrix y(1, static_cast<int>(channels));
  for (std::size_t c = 0; c < channels; ++c) {
    double value = 0, slope = 0;
    for (std::size_t k = terms; k-- > 0;) {
      slope = slope * u + value;
      value = value * u + a[k * channels + c];
    }
    y.a[c] = value + slope * beyond;
  }
  return y;
}

/// The first layer, `name`: its matrix has the row of s, then those of the types, which strip mode does not have.
void unfold_first(RawTensors& raw, const std::string& name, const Matrix& types, const FoldedEmbeddingNet& gradient, Weights& to,
                  Matrix& types_gradient) {
  const Matrix w = raw.matrix(name + ".matrix"), of_types = rows(w, 1, 1, w.rows - 1);
  const bool typed = w.rows > 1;
  const int combinations = typed ? types.rows : 1;
  Matrix dw(w.rows, w.cols);
  if (!gradient.layers.empty()) {
    const FoldedHidden& first = gradient.layers.front();
    if (given(first.w, 1, w.cols, "the first layer of an embedding net")) add_rows(dw, first.w, 0, 1);
    add(to, name + ".idt", first.idt);
  }
  if (given(gradient.type_term, combinations, w.cols, "type_term")) {
    add(to, name + ".bias", column_sums(gradient.type_term));
    if (typed) {
      add_rows(dw, product(transposed(types), gradient.type_term), 1, 1);
      add(types_gradient, product(gradient.type_term, transposed(of_types)));
    }
  }
  if (given(gradient.type_skip, combinations, w.rows, "type_skip") && typed)
    add(types_gradient, columns(gradient.type_skip, 1, 1, types.cols));
  add(to, name + ".matrix", dw);
}

/// The types' network of strip mode: it is evaluated again, and its layers are gone through backward.
void unfold_gate(RawTensors& raw, const std::string& prefix, std::size_t nlayers, const FoldedActivation& act, const Matrix& types,
                 const Matrix& gate, Weights& to, Matrix& types_gradient) {
  if (gate.empty()) return;
  std::vector<FoldedHidden> layers;
  std::vector<Matrix> inputs{types};
  for (std::size_t l = 0; l < nlayers; ++l) {
    layers.push_back(fold_hidden(raw, prefix + std::to_string(l)));
    if (l + 1 < nlayers) inputs.push_back(evaluate(layers[l], act, inputs[l]));
  }
  given(gate, types.rows, layers.back().out, "gate");
  Matrix dy = gate;
  for (std::size_t l = nlayers; l-- > 0;) {
    FoldedHidden gradient;
    dy = backward(layers[l], act, inputs[l], dy, gradient);
    unfold_hidden(gradient, prefix + std::to_string(l), to);
  }
  add(types_gradient, dy);
}

}  // namespace

FoldedEmbeddingNet fold_embedding_net(const Config& config, RawTensors& raw, const EmbeddingOptions& options, const Matrix& tebd) {
  const std::string prefix = main_network(options);
  FoldedEmbeddingNet net;
  net.act = fold_activation(config.repinit.activation);
  net.typed = !config.repinit.strip;
  for (std::size_t l = 0; l < options.nlayers; ++l) net.layers.push_back(fold_hidden(raw, prefix + std::to_string(l)));
  FoldedHidden& first = net.layers.front();
  const Matrix types = type_pairs(tebd, options.one_side);
  const int combinations = net.typed ? types.rows : 1;
  net.type_term = Matrix(combinations, first.out);
  Matrix skip(combinations, first.in);
  for (int row = 0; row < combinations; ++row) {
    for (int c = 0; c < first.out; ++c) net.type_term(row, c) = first.b(0, c);
    for (int k = 1; k < first.in; ++k) {
      const double x = skip(row, k) = types(row, k - 1);
      for (int c = 0; c < first.out; ++c) net.type_term(row, c) += x * first.w(k, c);
    }
  }
  if (first.skip != 0) net.type_skip = std::move(skip);
  first.w = rows(first.w, 0, 1, 1);
  first.b = Matrix();
  if (config.repinit.strip) {
    net.gate = types;
    for (std::size_t l = 0; l < options.nlayers; ++l)
      net.gate = evaluate(fold_hidden(raw, options.block + strip_network + std::to_string(l)), net.act, net.gate);
  }
  if (options.table) net.table = fold_table(*options.table, raw.tensor(options.block + ".table"));
  return net;
}

void unfold_embedding_net(const Config& config, RawTensors& raw, const EmbeddingOptions& options, const Matrix& tebd,
                          const FoldedEmbeddingNet& gradient, Weights& to, Matrix& tebd_gradient) {
  const std::string prefix = main_network(options);
  const Matrix types = type_pairs(tebd, options.one_side);
  Matrix types_gradient(types.rows, types.cols);
  unfold_first(raw, prefix + "0", types, gradient, to, types_gradient);
  for (std::size_t l = 1; l < gradient.layers.size(); ++l) unfold_hidden(gradient.layers[l], prefix + std::to_string(l), to);
  unfold_gate(raw, options.block + strip_network, options.nlayers, fold_activation(config.repinit.activation), types, gradient.gate, to,
              types_gradient);
  unfold_type_pairs(types_gradient, options.one_side, tebd_gradient);
}

Matrix evaluate(const FoldedEmbeddingNet& net, double s, int combination) {
  const int row = net.typed ? combination : 0;
  if (net.table) return evaluate(*net.table, s, row);
  const FoldedHidden& first = net.layers.front();
  Matrix y(1, first.out);
  for (int c = 0; c < first.out; ++c) {
    y(0, c) = evaluate(net.act, s * first.w(0, c) + net.type_term(row, c)) * (first.idt.empty() ? 1.0 : first.idt(0, c));
    if (first.skip != 0) y(0, c) += c % first.in == 0 ? s : net.type_skip(row, c % first.in);
  }
  for (std::size_t l = 1; l < net.layers.size(); ++l) y = evaluate(net.layers[l], net.act, y);
  return y;
}

}  // namespace dpa2
