#include "model/probe.hpp"

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "error.hpp"
#include "fold/fitting.hpp"
#include "fold/type_embedding.hpp"

namespace dpa2 {

namespace {

/// Throws model_file_error unless the weights whose names begin with one of these are those that the configuration asks for.
void check_part(const Config& c, const Weights& weights, const std::vector<std::string>& prefixes) {
  const auto belongs = [&](const std::string& name) {
    return std::any_of(prefixes.begin(), prefixes.end(), [&](const std::string& p) { return name.compare(0, p.size(), p) == 0; });
  };
  ExpectedWeights expected;
  for (ExpectedWeight& weight : expected_weights(c))
    if (belongs(weight.name)) expected.push_back(std::move(weight));
  std::map<std::string, std::vector<std::int64_t>> shapes;
  for (const auto& [name, tensor] : weights)
    if (belongs(name)) shapes.emplace(name, tensor.shape);
  check_shapes(expected, shapes);
}

}  // namespace

EmbeddingCurves::EmbeddingCurves(const Config& c, const Weights& weights, bool three_body) {
  const std::string block = three_body ? "descriptor.repinit_three_body" : "descriptor.repinit", net = block + ".filter_layers.";
  std::vector<std::string> parts{net};
  if (!c.repinit.strip) parts.insert(parts.end(), {"descriptor.type_embedding.", "descriptor.econf_tebd"});
  check_part(c, weights, parts);
  RawTensors raw(weights);
  if (!c.repinit.strip) types_ = type_pairs(fold_type_embedding(c, raw), !three_body && c.repinit.type_one_side);
  std::vector<FoldedHidden> layers;
  for (std::size_t l = 0; l < (three_body ? c.repinit.three_body_neuron : c.repinit.neuron).size(); ++l)
    layers.push_back(fold_hidden(raw, net + "networks.0.layers." + std::to_string(l)));
  network_.emplace(1 + types_.cols, layers, fold_activation(c.repinit.activation));
}

int EmbeddingCurves::count() const { return types_.empty() ? 1 : types_.rows; }

void EmbeddingCurves::evaluate(int curve, std::ptrdiff_t n, const double* s, double* y) const {
  if (curve < 0 || curve >= count()) throw invalid_input("there is no curve ", curve, ": the network has ", count());
  const std::ptrdiff_t in = network_->in();
  std::vector<double> x(static_cast<std::size_t>(3 * n * in), 0.0);
  for (std::ptrdiff_t e = 0; e < n; ++e) {
    double* row = x.data() + e * in;
    row[0] = s[e];
    std::copy_n(types_.a.data() + curve * (in - 1), in - 1, row + 1);
    x[static_cast<std::size_t>((n + e) * in)] = 1.0;
  }
  network_->jets(n, x.data(), y);
}

std::vector<double> last_hidden(const Config& c, const Weights& weights, std::ptrdiff_t nframes, std::ptrdiff_t natoms,
                                const double* descriptor, const double* fparam, const double* aparam) {
  check_part(c, weights, {"fitting_net."});
  RawTensors raw(weights);
  const FoldedFitting f = fold_fitting(c.fitting, raw);
  const int d = c.descriptor_dim(), nf = f.fparam_avg.cols, na = f.aparam_avg.cols, nc = f.case_embd.cols, in = d + nf + na + nc;
  const Network network(in, f.layers, f.act);
  std::vector<double> x(static_cast<std::size_t>(nframes * natoms * in));
  const auto normalised = [&](const Matrix& avg, const Matrix& inv_std, const double* given, std::ptrdiff_t rows_per_given, int at) {
    const int n = avg.cols;
    for (std::ptrdiff_t row = 0; n > 0 && row < nframes * natoms; ++row)
      for (int k = 0; k < n; ++k)
        x[static_cast<std::size_t>(row * in + at + k)] = (given[row / rows_per_given * n + k] - avg(0, k)) * inv_std(0, k);
  };
  normalised(f.fparam_avg, f.fparam_inv_std, fparam, natoms, d);
  normalised(f.aparam_avg, f.aparam_inv_std, aparam, 1, d + nf);
  for (std::ptrdiff_t row = 0; row < nframes * natoms; ++row) {
    std::copy_n(descriptor + row * d, d, x.data() + row * in);
    std::copy_n(f.case_embd.a.data(), nc, x.data() + row * in + d + nf + na);
  }
  std::vector<double> y(static_cast<std::size_t>(nframes * natoms * network.out()));
  network.values(nframes * natoms, x.data(), y.data());
  return y;
}

}  // namespace dpa2
