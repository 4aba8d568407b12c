#include "fold/local_attention.hpp"

#include <cmath>

namespace dpa2 {

FoldedLocalAttention fold_local_attention(const RepformerConfig& config, RawTensors& raw, const std::string& layer) {
  const int nh = config.attn1_nhead, nd = config.attn1_hidden, n1 = config.g1_dim;
  const Matrix q = raw.matrix(layer + "loc_attn.mapq.matrix"), kv = raw.matrix(layer + "loc_attn.mapkv.matrix");
  const Matrix o = raw.matrix(layer + "loc_attn.head_map.matrix");
  const double scale = 1.0 / std::sqrt(static_cast<double>(nd));
  FoldedLocalAttention f;
  f.query = Matrix(n1, nh * n1);
  f.value = Matrix(nh * n1, n1);
  for (int h = 0; h < nh; ++h) {
    place(f.query, product(columns(q, h, nh, nd), transposed(columns(kv, h, nh, nd))), 0, h * n1, scale);
    place(f.value, product(columns(kv, nd * nh + h, nh, n1), rows(o, h * n1, 1, n1)), h * n1, 0);
  }
  f.b = raw.matrix(layer + "loc_attn.head_map.bias");
  return f;
}

}  // namespace dpa2
