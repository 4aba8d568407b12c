#include "fold/pair_attention.hpp"

#include <cmath>

namespace dpa2 {

namespace {

const double inv_sqrt3 = 1.0 / std::sqrt(3.0);

/// The raw matrix of queries and keys, the heads of which are interleaved in the columns: all queries, then all keys.
struct Map {
  int nh, nd;
  Matrix qk;

  Map(const RepformerConfig& config, RawTensors& raw, const std::string& layer)
      : nh(config.attn2_nhead), nd(config.attn2_hidden), qk(raw.matrix(layer + "attn2g_map.mapqk.matrix")) {}
  Matrix query(int h) const { return columns(qk, h, 2 * nh, nd); }
  Matrix key(int h) const { return columns(qk, nh + h, 2 * nh, nd); }
  double scale() const { return 1.0 / std::sqrt(static_cast<double>(nd)); }
};

/// The raw matrices of the values, heads interleaved in the columns, and of the head map, in its rows.
struct Apply {
  int nh, n2;
  Matrix v, o;

  Apply(const RepformerConfig& config, RawTensors& raw, const std::string& layer)
      : nh(config.attn2_nhead),
        n2(config.g2_dim),
        v(raw.matrix(layer + "attn2_mh_apply.mapv.matrix")),
        o(raw.matrix(layer + "attn2_mh_apply.head_map.matrix")) {}
  Matrix value(int h) const { return columns(v, h, nh, n2); }
  Matrix head_map(int h) const { return rows(o, h, nh, n2); }
};

}  // namespace

FoldedPairAttention fold_pair_attention(const RepformerConfig& config, RawTensors& raw, const std::string& layer,
                                        const LayerFeatures& has) {
  const int nh = config.attn2_nhead, n2 = config.g2_dim;
  FoldedPairAttention f;
  const Map map(config, raw, layer);
  f.query = Matrix(n2, nh * n2);
  for (int h = 0; h < nh; ++h) place(f.query, product(map.key(h), transposed(map.query(h))), 0, h * n2, map.scale());
  if (has.pair_attention) {
    const Apply apply(config, raw, layer);
    f.value = Matrix(n2, nh * n2);
    for (int h = 0; h < nh; ++h) {
      Matrix b = product(apply.value(h), apply.head_map(h));
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
    multiply(f.h2, inv_sqrt3);
  }
  return f;
}

void unfold_pair_attention(const RepformerConfig& config, RawTensors& raw, const std::string& layer, const LayerFeatures& has,
                           const FoldedPairAttention& gradient, Weights& to) {
  const int nh = config.attn2_nhead, n2 = config.g2_dim;
  if (given(gradient.query, n2, nh * n2, "pair_attention.query")) {
    const Map map(config, raw, layer);
    Matrix qk(map.qk.rows, map.qk.cols);
    for (int h = 0; h < nh; ++h) {
      Matrix g = columns(gradient.query, h * n2, 1, n2);
      multiply(g, map.scale());
      add_columns(qk, product(transposed(g), map.key(h)), h, 2 * nh);
      add_columns(qk, product(g, map.query(h)), nh + h, 2 * nh);
    }
    add(to, layer + "attn2g_map.mapqk.matrix", qk);
  }
  if (has.pair_attention) {
    if (given(gradient.value, n2, nh * n2, "pair_attention.value")) {
      const Apply apply(config, raw, layer);
      Matrix v(apply.v.rows, apply.v.cols), o(apply.o.rows, apply.o.cols);
      for (int h = 0; h < nh; ++h) {
        Matrix g = columns(gradient.value, h * n2, 1, n2);
        multiply(g, inv_sqrt3);
        remove_row_means(g);
        add_columns(v, product(g, transposed(apply.head_map(h))), h, nh);
        add_rows(o, product(transposed(apply.value(h)), g), h, nh);
      }
      add(to, layer + "attn2_mh_apply.mapv.matrix", v);
      add(to, layer + "attn2_mh_apply.head_map.matrix", o);
    }
    Matrix b = gradient.b;
    remove_row_means(b);
    add(to, layer + "attn2_mh_apply.head_map.bias", b);
    add(to, layer + "attn2_lm.matrix", gradient.gain);
    add(to, layer + "attn2_lm.bias", gradient.shift);
  }
  if (has.update_h2) {
    Matrix h2 = gradient.h2;
    multiply(h2, inv_sqrt3);
    add(to, layer + "attn2_ev_apply.head_map.matrix", h2);
  }
}

}  // namespace dpa2
