#include "fold/type_embedding.hpp"

#include "math/skip.hpp"

namespace dpa2 {

Matrix fold_type_embedding(const Config& config, RawTensors& raw) {
  const std::string name = "descriptor.type_embedding.embedding.embedding_net.layers.0";
  const int ntypes = config.ntypes();
  const Matrix kernel = raw.matrix(name + ".matrix");
  Matrix x(ntypes, config.tebd_input());
  if (config.use_econf_tebd)
    x = raw.matrix("descriptor.econf_tebd");
  else
    for (int t = 0; t < ntypes; ++t) x(t, t) = 1.0;
  const Matrix bias = config.use_tebd_bias ? raw.matrix(name + ".bias") : Matrix();
  Matrix e = product(x, kernel);
  for (int t = 0; t < ntypes; ++t)
    for (int k = 0; k < e.cols; ++k) {
      if (!bias.empty()) e(t, k) += bias(0, k);
      if (math::skip_copies(x.cols, e.cols) != 0) e(t, k) += x(t, k % x.cols);
    }
  return e;
}

}  // namespace dpa2
