#include "fold/type_embedding.hpp"

#include "math/skip.hpp"

namespace dpa2 {

namespace {

const std::string type_network = "descriptor.type_embedding.embedding.embedding_net.layers.0";

/// (ntypes, tebd_input) what the layer sees.
Matrix types(const Config& config, RawTensors& raw) {
  if (config.use_econf_tebd) return raw.matrix("descriptor.econf_tebd");
  Matrix x(config.ntypes(), config.tebd_input());
  for (int t = 0; t < x.rows; ++t) x(t, t) = 1.0;
  return x;
}

}  // namespace

Matrix fold_type_embedding(const Config& config, RawTensors& raw) {
  const int ntypes = config.ntypes();
  const Matrix kernel = raw.matrix(type_network + ".matrix");
  const Matrix x = types(config, raw);
  const Matrix bias = config.use_tebd_bias ? raw.matrix(type_network + ".bias") : Matrix();
  Matrix e = product(x, kernel);
  for (int t = 0; t < ntypes; ++t)
    for (int k = 0; k < e.cols; ++k) {
      if (!bias.empty()) e(t, k) += bias(0, k);
      if (math::skip_copies(x.cols, e.cols) != 0) e(t, k) += x(t, k % x.cols);
    }
  return e;
}

void unfold_type_embedding(const Config& config, RawTensors& raw, const Matrix& gradient, Weights& to) {
  if (!given(gradient, config.ntypes(), config.repinit.tebd_dim, "the type embedding")) return;
  add(to, type_network + ".matrix", product(transposed(types(config, raw)), gradient));
  if (config.use_tebd_bias) add(to, type_network + ".bias", column_sums(gradient));
}

}  // namespace dpa2
