#include "model/probe.hpp"

#include <algorithm>

#include "error.hpp"
#include "fold/type_embedding.hpp"

namespace dpa2 {

namespace {

/// Of the embedding network of a block: numbers that it sees besides the scalar.
int types_in(const Config& c, bool three_body) {
  if (c.repinit.strip) return 0;
  return !three_body && c.repinit.type_one_side ? c.repinit.tebd_dim : 2 * c.repinit.tebd_dim;
}

void check_type_embedding(const Config& c, const Weights& weights) {
  const std::string name = "descriptor.type_embedding.embedding.embedding_net.layers.0";
  shaped(weights, name + ".matrix", {c.tebd_input(), c.repinit.tebd_dim});
  if (c.use_tebd_bias) shaped(weights, name + ".bias", {c.repinit.tebd_dim});
  if (c.use_econf_tebd) shaped(weights, "descriptor.econf_tebd", {c.ntypes(), c.tebd_input()});
}

}  // namespace

EmbeddingCurves::EmbeddingCurves(const Config& c, const Weights& weights, bool three_body)
    : network_(weights, std::string(three_body ? "descriptor.repinit_three_body" : "descriptor.repinit") + ".filter_layers.networks.0",
               1 + types_in(c, three_body), three_body ? c.repinit.three_body_neuron : c.repinit.neuron, c.repinit.resnet_dt,
               c.repinit.activation) {
  if (c.repinit.strip) return;
  check_type_embedding(c, weights);
  RawTensors raw(weights);
  const Matrix tebd = fold_type_embedding(c, raw);
  const bool one_side = !three_body && c.repinit.type_one_side;
  const int n = c.ntypes();
  count_ = one_side ? n : n * n;
  for (int curve = 0; curve < count_; ++curve) {
    const double* neighbour = tebd.a.data() + static_cast<std::ptrdiff_t>(one_side ? curve : curve / n) * tebd.cols;
    const double* centre = tebd.a.data() + static_cast<std::ptrdiff_t>(curve % n) * tebd.cols;
    types_.insert(types_.end(), neighbour, neighbour + tebd.cols);
    if (!one_side) types_.insert(types_.end(), centre, centre + tebd.cols);
  }
}

void EmbeddingCurves::evaluate(int curve, std::ptrdiff_t n, const double* s, double* y) const {
  if (curve < 0 || curve >= count_) throw invalid_input("there is no curve ", curve, ": the network has ", count_);
  const std::ptrdiff_t in = network_.in();
  std::vector<double> x(static_cast<std::size_t>(3 * n * in), 0.0);
  for (std::ptrdiff_t e = 0; e < n; ++e) {
    double* row = x.data() + e * in;
    row[0] = s[e];
    std::copy_n(types_.data() + curve * (in - 1), in - 1, row + 1);
    x[static_cast<std::size_t>((n + e) * in)] = 1.0;
  }
  network_.jets(n, x.data(), y);
}

std::vector<double> last_hidden(const Config& c, const Weights& weights, std::ptrdiff_t nframes, std::ptrdiff_t natoms,
                                const double* descriptor, const double* fparam, const double* aparam) {
  const FittingConfig& f = c.fitting;
  const int d = c.descriptor_dim(), nf = f.numb_fparam, na = f.use_aparam_as_mask ? 0 : f.numb_aparam, nc = f.dim_case_embd;
  const int in = d + nf + na + nc;
  const Network network(weights, "fitting_net.filter_layers.networks.0", in, f.neuron, f.resnet_dt, f.activation);
  std::vector<double> x(static_cast<std::size_t>(nframes * natoms * in));
  const auto normalised = [&](const char* name, int n, const double* given, std::ptrdiff_t rows_per_given, int at) {
    if (n == 0) return;
    const std::string prefix = std::string("fitting_net.") + name;
    const std::vector<double>&avg = shaped(weights, prefix + "_avg", {n}), &inv_std = shaped(weights, prefix + "_inv_std", {n});
    for (std::ptrdiff_t row = 0; row < nframes * natoms; ++row)
      for (int k = 0; k < n; ++k)
        x[static_cast<std::size_t>(row * in + at + k)] =
            (given[row / rows_per_given * n + k] - avg[static_cast<std::size_t>(k)]) * inv_std[static_cast<std::size_t>(k)];
  };
  normalised("fparam", nf, fparam, natoms, d);
  normalised("aparam", na, aparam, 1, d + nf);
  const double* case_embd = nc > 0 ? shaped(weights, "fitting_net.case_embd", {nc}).data() : nullptr;
  for (std::ptrdiff_t row = 0; row < nframes * natoms; ++row) {
    std::copy_n(descriptor + row * d, d, x.data() + row * in);
    if (nc > 0) std::copy_n(case_embd, nc, x.data() + row * in + d + nf + na);
  }
  std::vector<double> y(static_cast<std::size_t>(nframes * natoms * network.out()));
  network.values(nframes * natoms, x.data(), y.data());
  return y;
}

}  // namespace dpa2
