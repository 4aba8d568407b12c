#include "fold/pair_attention.hpp"

#include <cmath>

namespace dpa2 {

FoldedPairAttention fold_pair_attention(const RepformerConfig& config, RawTensors& raw, const std::string& layer,
                                        const LayerFeatures& has) {
  const int nh = config.attn2_nhead, nd = config.attn2_hidden, n2 = config.g2_dim;
  const double scale = 1.0 / std::sqrt(static_cast<double>(nd)), inv_sqrt3 = 1.0 / std::sqrt(3.0);
  FoldedPairAttention f;
  const Matrix qk = raw.matrix(layer + "attn2g_map.mapqk.matrix");
  f.query = Matrix(n2, nh * n2);
  for (int h = 0; h < nh; ++h)
    place(f.query, product(columns(qk, nh + h, 2 * nh, nd), transposed(columns(qk, h, 2 * nh, nd))), 0, h * n2, scale);
  if (has.pair_attention) {
    const Matrix v = raw.matrix(layer + "attn2_mh_apply.mapv.matrix"), o = raw.matrix(layer + "attn2_mh_apply.head_map.matrix");
    f.value = Matrix(n2, nh * n2);
    for (int h = 0; h < nh; ++h) {
      Matrix b = product(columns(v, h, nh, n2), rows(o, h, nh, n2));
      remove_row_means(b);
      place(f.value, b, 0, h * n2, inv_sqrt3);
    }
    f.b = raw.matrix(layer + "attn2_mh_apply.head_map.bias");
    remove_row_means(f.b);
    f.gain = raw.matrix(layer + "attn2_lm.matrix");
    f.shift = raw.matrix(layer + "attn2_lm.bias");
  }
  if (has.update_h2) {
    f.h2 = raw.matrix(layer + "attn2_ev_apply.head_map.matrix");
    for (double& x : f.h2.a) x *= inv_sqrt3;
  }
  return f;
}

}  // namespace dpa2
