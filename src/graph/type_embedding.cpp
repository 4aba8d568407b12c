#include "graph/type_embedding.hpp"

#include "math/skip.hpp"

namespace dpa2 {

Matrix fold_type_embedding(const Config& config, const Weights& weights) {
  const std::string name = "descriptor.type_embedding.embedding.embedding_net.layers.0";
  const int ntypes = config.ntypes();
  Matrix x(ntypes, config.tebd_input());
  if (config.use_econf_tebd)
    x = matrix(weights, "descriptor.econf_tebd");
  else
    for (int t = 0; t < ntypes; ++t) x(t, t) = 1.0;
  const Matrix bias = config.use_tebd_bias ? matrix(weights, name + ".bias") : Matrix();
  Matrix e = product(x, matrix(weights, name + ".matrix"));
  for (int t = 0; t < ntypes; ++t)
    for (int k = 0; k < e.cols; ++k) {
      if (config.use_tebd_bias) e(t, k) += bias(0, k);
      if (math::skip_copies(x.cols, e.cols) != 0) e(t, k) += x(t, k % x.cols);
    }
  return e;
}

}  // namespace dpa2
