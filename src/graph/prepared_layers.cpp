// Preparing the repformer layers (folds: specification, section 11) and the fitting network.
#include <cmath>

#include "error.hpp"
#include "graph/packing.hpp"
#include "graph/prepared.hpp"
#include "math/attention.hpp"
#include "math/skip.hpp"

namespace dpa2 {

namespace {

/// Columns first, first + step, ... of m.
Matrix columns(const Matrix& m, int first, int step, int count) {
  Matrix y(m.rows, count);
  for (int r = 0; r < m.rows; ++r)
    for (int c = 0; c < count; ++c) y(r, c) = m(r, first + c * step);
  return y;
}

Matrix rows(const Matrix& m, int first, int step, int count) {
  Matrix y(count, m.cols);
  for (int r = 0; r < count; ++r)
    for (int c = 0; c < m.cols; ++c) y(r, c) = m(first + r * step, c);
  return y;
}

void place(Matrix& to, const Matrix& from, int row, int col, double scale = 1.0) {
  for (int r = 0; r < from.rows; ++r)
    for (int c = 0; c < from.cols; ++c) to(row + r, col + c) = scale * from(r, c);
}

/// Removes the mean over the columns of every row: m (I - 11^T / cols).
void remove_row_means(Matrix& m) {
  for (int r = 0; r < m.rows; ++r) {
    double mean = 0;
    for (int c = 0; c < m.cols; ++c) mean += m(r, c);
    mean /= m.cols;
    for (int c = 0; c < m.cols; ++c) m(r, c) -= mean;
  }
}

template <class T>
void pack_both(Storage& storage, const Matrix& m, Packed<T>& w, Packed<T>& wt) {
  w = pack<T>(storage, m);
  wt = pack<T>(storage, transposed(m));
}

template <class T>
void dense_layer(Storage& storage, const Weights& w, const std::string& name, int k, int n, Packed<T>& m, Packed<T>& mt, const T*& b) {
  pack_both(storage, padded_to(matrix(w, name + ".matrix"), k, n), m, mt);
  b = flat<T>(storage, matrix(w, name + ".bias"), n);
}

/// a and r_k of the update style; `name` is the list of residual vectors.
template <class T>
Residual<T> residual(Storage& storage, const Weights& w, UpdateStyle style, const std::string& name, int nterms, int n_real, int n) {
  Residual<T> r;
  r.nterms = nterms;
  double a = 1.0, scale = 1.0;
  if (style == UpdateStyle::res_avg) a = scale = 1.0 / std::sqrt(nterms + 1.0);
  if (style == UpdateStyle::res_incr && nterms > 0) scale = 1.0 / std::sqrt(static_cast<double>(nterms));
  r.a = static_cast<T>(a);
  for (int k = 0; k < nterms; ++k)
    r.r[k] = style == UpdateStyle::res_residual ? flat<T>(storage, matrix(w, name + "." + std::to_string(k)), n)
                                                : flat<T>(storage, std::vector<double>(static_cast<std::size_t>(n_real), scale), n);
  return r;
}

template <class T>
void pair_attention(Storage& storage, const Weights& w, const std::string& layer, const Config& c, int n2, LayerParams<T>& p) {
  const RepformerConfig& r = c.repformer;
  const int nh = r.attn2_nhead, nd = r.attn2_hidden, real = r.g2_dim;
  p.pair.nh = nh;
  p.pair.n2 = n2;
  p.pair.gate = r.attn2_has_gate;
  p.pair.smooth = c.smooth;
  p.pair.shift = c.smooth ? T(math::attention_shift) : T(0);
  const Matrix qk = matrix(w, layer + "attn2g_map.mapqk.matrix");
  Matrix A(n2, nh * n2);
  for (int h = 0; h < nh; ++h)
    place(A, product(columns(qk, nh + h, 2 * nh, nd), transposed(columns(qk, h, 2 * nh, nd))), 0, h * n2, 1.0 / std::sqrt(static_cast<double>(nd)));
  pack_both(storage, A, p.pair.A, p.pair.At);
  const double inv_sqrt3 = 1.0 / std::sqrt(3.0);
  if (p.has.pair_attention) {
    const Matrix v = matrix(w, layer + "attn2_mh_apply.mapv.matrix"), o = matrix(w, layer + "attn2_mh_apply.head_map.matrix");
    Matrix B(n2, nh * n2), Bt(nh * n2, n2);
    for (int h = 0; h < nh; ++h) {
      Matrix b = product(columns(v, h, nh, real), rows(o, h, nh, real));
      remove_row_means(b);
      place(B, b, 0, h * n2, inv_sqrt3);
      place(Bt, b, h * n2, 0, inv_sqrt3);
    }
    p.pair.B = pack<T>(storage, B);
    p.pair.Bt = flat<T>(storage, Bt);
    Matrix bias = matrix(w, layer + "attn2_mh_apply.head_map.bias");
    remove_row_means(bias);
    p.pair.bias = flat<T>(storage, bias, n2);
    p.ln_gamma = flat<T>(storage, matrix(w, layer + "attn2_lm.matrix"), n2);
    p.ln_beta = flat<T>(storage, matrix(w, layer + "attn2_lm.bias"), n2);
  }
  if (p.has.update_h2) {
    Matrix ev = matrix(w, layer + "attn2_ev_apply.head_map.matrix");
    for (double& x : ev.a) x *= inv_sqrt3;
    p.pair.h2_weight = flat<T>(storage, ev);
  }
}

template <class T>
void local_attention(Storage& storage, const Weights& w, const std::string& layer, const RepformerConfig& r, int n1, LayerParams<T>& p) {
  const int nh = r.attn1_nhead, nd = r.attn1_hidden, real = r.g1_dim;
  const Matrix q = matrix(w, layer + "loc_attn.mapq.matrix"), kv = matrix(w, layer + "loc_attn.mapkv.matrix");
  const Matrix o = matrix(w, layer + "loc_attn.head_map.matrix");
  Matrix A(n1, nh * n1), B(nh * n1, n1);
  for (int h = 0; h < nh; ++h) {
    place(A, product(columns(q, h, nh, nd), transposed(columns(kv, h, nh, nd))), 0, h * n1, 1.0 / std::sqrt(static_cast<double>(nd)));
    place(B, product(columns(kv, nd * nh + h, nh, real), rows(o, h * real, 1, real)), h * n1, 0);
  }
  pack_both(storage, A, p.att_q, p.att_qt);
  pack_both(storage, B, p.att_o, p.att_ot);
  p.att_b = flat<T>(storage, matrix(w, layer + "loc_attn.head_map.bias"), n1);
}

}  // namespace

template <class T>
void Prepared<T>::prepare_layers(const Config& c, const Weights& w) {
  const RepformerConfig& r = c.repformer;
  smooth = c.smooth;
  direct_dist = r.direct_dist;
  use_sqrt_nnei = r.use_sqrt_nnei;
  axis = r.axis_neuron;
  nh1 = r.attn1_nhead;
  ln_eps = static_cast<T>(r.ln_eps);
  layers.resize(static_cast<std::size_t>(r.nlayers));
  for (int l = 0; l < r.nlayers; ++l) {
    LayerParams<T>& p = layers[static_cast<std::size_t>(l)];
    const std::string name = "descriptor.repformers.layers." + std::to_string(l) + ".";
    const LayerFeatures has = p.has = layer_features(r, l);
    if (has.self) dense_layer(storage, w, name + "g1_self_mlp", n1, n1, p.self, p.self_t, p.self_b);
    if (has.conv) {
      const Matrix P = matrix(w, name + "proj_g1g2.matrix");
      pack_both(storage, has.out_conv ? padded_to(P, n2, n1) : padded_to(P, n1, n2), p.P, p.Pt);
    }
    // linear1 sees its inputs one after the other; here every piece begins at a padded column.
    const Matrix w1 = matrix(w, name + "linear1.matrix");
    struct Piece {
      bool present;
      int repeat, real, width;
      int* at;
    };
    const Piece pieces[] = {{!has.self, 1, n1_real, n1, &p.cat_g1},
                            {has.conv && !has.out_conv, 1, n2_real, n2, &p.cat_conv},
                            {has.grrg, axis, n2_real, n2, &p.cat_grrg},
                            {has.drrd, axis, n1_real, n1, &p.cat_drrd}};
    for (const Piece& piece : pieces)
      if (piece.present) {
        *piece.at = p.ncat;
        p.ncat += piece.repeat * piece.width;
      }
    Matrix w1p(p.ncat, n1);
    int source = 0;
    for (const Piece& piece : pieces)
      for (int k = 0; piece.present && k < piece.repeat; ++k, source += piece.real)
        place(w1p, rows(w1, source, 1, piece.real), *piece.at + k * piece.width, 0);
    pack_both(storage, w1p, p.w1, p.w1t);
    p.b1 = flat<T>(storage, matrix(w, name + "linear1.bias"), n1);
    if (has.local_attention) local_attention(storage, w, name, r, n1, p);

    int k1 = 0, k2 = 0;
    if (has.self) p.g1_self = k1++;
    if (has.out_conv) p.g1_conv = k1++;
    p.g1_linear1 = k1++;
    if (has.local_attention) p.g1_att = k1++;
    p.res1 = residual<T>(storage, w, r.update_style, name + "g1_residual", k1, n1_real, n1);
    if (has.last) continue;

    dense_layer(storage, w, name + "linear2", n2, n2, p.w2, p.w2t, p.b2);
    if (has.g1g1) pack_both(storage, padded_to(matrix(w, name + "proj_g1g1g2.matrix"), n1, n2), p.gg, p.ggt);
    if (has.pair_map()) pair_attention(storage, w, name, c, n2, p);
    p.g2_linear2 = k2++;
    if (has.g1g1) p.g2_g1g1 = k2++;
    if (has.pair_attention) p.g2_att = k2++;
    p.res2 = residual<T>(storage, w, r.update_style, name + "g2_residual", k2, n2_real, n2);
    if (has.update_h2) {
      const Residual<T> h = residual<T>(storage, w, r.update_style, name + "h2_residual", 1, 1, 1);
      p.h2_a = h.a;
      p.h2_r = h.r[0][0];
    }
  }
}

template <class T>
void Prepared<T>::prepare_fitting(const Config& c, const Weights& w) {
  const FittingConfig& f = c.fitting;
  const std::string prefix = "fitting_net.filter_layers.networks.0.layers.";
  nfparam = f.numb_fparam;
  naparam = f.numb_aparam;
  ncase = f.dim_case_embd;
  aparam_in_net = naparam > 0 && !f.use_aparam_as_mask;
  vacuum = f.has_atom_ener;
  const auto vector = [&](const char* name, int n) {
    return n > 0 ? matrix(w, std::string("fitting_net.") + name).a : std::vector<double>();
  };
  fparam_avg = vector("fparam_avg", nfparam);
  fparam_inv_std = vector("fparam_inv_std", nfparam);
  aparam_avg = vector("aparam_avg", aparam_in_net ? naparam : 0);
  aparam_inv_std = vector("aparam_inv_std", aparam_in_net ? naparam : 0);
  case_embd = vector("case_embd", ncase);
  if (f.default_fparam) default_fparam = *f.default_fparam;

  const std::size_t nhidden = f.neuron.size();
  if (nhidden > max_fitting_layers) throw unsupported("a fitting net of ", nhidden, " layers (at most ", max_fitting_layers, " are supported)");
  fitting_layers_.resize(nhidden);
  for (std::size_t l = 0; l < nhidden; ++l) {
    const std::string name = prefix + std::to_string(l);
    const Matrix m = matrix(w, name + ".matrix");
    FittingLayer<T>& layer = fitting_layers_[l];
    layer.in = m.rows;
    layer.out = m.cols;
    layer.skip = math::skip_copies(m.rows, m.cols);
    dense_layer(storage, w, name, padded<T>(m.rows), padded<T>(m.cols), layer.w, layer.wt, layer.b);
    if (dpa2::has(w, name + ".idt")) layer.idt = flat<T>(storage, matrix(w, name + ".idt"), padded<T>(m.cols));
  }
  const std::string last = prefix + std::to_string(nhidden);
  const Matrix out = matrix(w, last + ".matrix");
  fitting.nlayers = static_cast<int>(nhidden);
  fitting.layers = fitting_layers_.data();
  fitting.in = padded<T>(nhidden > 0 ? fitting_layers_[0].in : out.rows);
  fitting.w_out = flat<T>(storage, out, padded<T>(out.rows));
  fitting.b_out = static_cast<T>(matrix(w, last + ".bias")(0, 0));
  fitting.act = activation<T>(f.activation);

  const Matrix bias = matrix(w, "fitting_net.bias_atom_e"), out_bias = matrix(w, "out_bias");
  energy_bias.resize(static_cast<std::size_t>(ntypes));
  energy_excluded.assign(static_cast<std::size_t>(ntypes), 0);
  for (std::size_t t = 0; t < energy_bias.size(); ++t) energy_bias[t] = bias.a[t] + out_bias.a[t];
  for (const int t : c.atom_exclude_types)
    if (t >= 0 && t < ntypes) energy_excluded[static_cast<std::size_t>(t)] = 1;
}

template <class T>
Prepared<T>::Prepared(const Config& c, const Weights& w) : kernels(dpa2::kernels<T>()), ntypes(c.ntypes()) {
  concat_tebd = c.concat_output_tebd;
  descriptor_dim = c.descriptor_dim();
  prepare_type_embedding(c, w);
  prepare_repinit(c, w);
  prepare_three_body(c, w);
  prepare_padding(c);
  prepare_entry(c, w);
  prepare_layers(c, w);
  prepare_fitting(c, w);
}

template struct Prepared<double>;
template struct Prepared<float>;

}  // namespace dpa2
