#include "fold/local_attention.hpp"

#include <cmath>

namespace dpa2 {

namespace {

/// The raw matrices, the heads of which are interleaved in the columns: keys of all heads, then values of all heads.
struct Raw {
  int nh, nd, n1;
  Matrix q, kv, o;

  Raw(const RepformerConfig& config, RawTensors& raw, const std::string& layer)
      : nh(config.attn1_nhead),
        nd(config.attn1_hidden),
        n1(config.g1_dim),
        q(raw.matrix(layer + "loc_attn.mapq.matrix")),
        kv(raw.matrix(layer + "loc_attn.mapkv.matrix")),
        o(raw.matrix(layer + "loc_attn.head_map.matrix")) {}
  Matrix query(int h) const { return columns(q, h, nh, nd); }
  Matrix key(int h) const { return columns(kv, h, nh, nd); }
  Matrix value(int h) const { return columns(kv, first_value(h), nh, n1); }
  Matrix head_map(int h) const { return rows(o, h * n1, 1, n1); }
  int first_value(int h) const { return nd * nh + h; }
  double scale() const { return 1.0 / std::sqrt(static_cast<double>(nd)); }
};

}  // namespace

FoldedLocalAttention fold_local_attention(const RepformerConfig& config, RawTensors& raw, const std::string& layer) {
  const Raw w(config, raw, layer);
  FoldedLocalAttention f;
  f.query = Matrix(w.n1, w.nh * w.n1);
  f.value = Matrix(w.nh * w.n1, w.n1);
  for (int h = 0; h < w.nh; ++h) {
    place(f.query, product(w.query(h), transposed(w.key(h))), 0, h * w.n1, w.scale());
    place(f.value, product(w.value(h), w.head_map(h)), h * w.n1, 0);
  }
  f.b = raw.matrix(layer + "loc_attn.head_map.bias");
  return f;
}

void unfold_local_attention(const RepformerConfig& config, RawTensors& raw, const std::string& layer, const FoldedLocalAttention& gradient,
                            Weights& to) {
  const Raw w(config, raw, layer);
  Matrix q(w.q.rows, w.q.cols), kv(w.kv.rows, w.kv.cols), o(w.o.rows, w.o.cols);
  if (given(gradient.query, w.n1, w.nh * w.n1, "local_attention.query"))
    for (int h = 0; h < w.nh; ++h) {
      Matrix g = columns(gradient.query, h * w.n1, 1, w.n1);
      multiply(g, w.scale());
      add_columns(q, product(g, w.key(h)), h, w.nh);
      add_columns(kv, product(transposed(g), w.query(h)), h, w.nh);
    }
  if (given(gradient.value, w.nh * w.n1, w.n1, "local_attention.value"))
    for (int h = 0; h < w.nh; ++h) {
      const Matrix g = rows(gradient.value, h * w.n1, 1, w.n1);
      add_columns(kv, product(g, transposed(w.head_map(h))), w.first_value(h), w.nh);
      add_rows(o, product(transposed(w.value(h)), g), h * w.n1, 1);
    }
  add(to, layer + "loc_attn.mapq.matrix", q);
  add(to, layer + "loc_attn.mapkv.matrix", kv);
  add(to, layer + "loc_attn.head_map.matrix", o);
  add(to, layer + "loc_attn.head_map.bias", gradient.b);
}

}  // namespace dpa2
