// Packing the layers of the repformer, the fitting network and what becomes of its numbers.
#include <type_traits>
#include <utility>

#include "error.hpp"
#include "graph/prepared.hpp"

namespace dpa2 {

namespace {

template <class T>
void dense_layer(Storage& storage, const Matrix& w, const Matrix& b, int k, int n, Packed<T>& m, Packed<T>& mt, const T*& bias) {
  pack_both(storage, padded_to(w, k, n), m, mt);
  bias = flat<T>(storage, b, n);
}

/// Blocks of m (n, nh n), side by side, with padding for each: (n_to, nh n_to).
Matrix padded_blocks(const Matrix& m, int nh, int n_to) {
  const int n = m.rows;
  Matrix p(n_to, nh * n_to);
  for (int h = 0; h < nh; ++h) place(p, columns(m, h * n, 1, n), 0, h * n_to);
  return p;
}

/// The same of blocks one below the other: m (nh n, n).
Matrix padded_stack(const Matrix& m, int nh, int n_to) {
  const int n = m.cols;
  Matrix p(nh * n_to, n_to);
  for (int h = 0; h < nh; ++h) place(p, rows(m, h * n, 1, n), h * n_to, 0);
  return p;
}

/// Blocks side by side, m (n, nh n), one below the other.
Matrix stacked(const Matrix& m, int nh) {
  const int n = m.rows;
  Matrix p(nh * n, n);
  for (int h = 0; h < nh; ++h) place(p, columns(m, h * n, 1, n), h * n, 0);
  return p;
}

template <class T>
Residual<T> residual(Storage& storage, const FoldedResidual& f, int n) {
  Residual<T> r;
  r.a = static_cast<T>(f.a);
  r.nterms = static_cast<int>(f.terms.size());
  for (std::size_t k = 0; k < f.terms.size(); ++k) r.r[k] = flat<T>(storage, f.terms[k].r, n);
  return r;
}

template <class T>
void pair_attention(Storage& storage, const FoldedPairAttention& f, const Config& c, int n2, T shift, LayerParams<T>& p) {
  const int nh = c.repformer.attn2_nhead;
  p.pair.nh = nh;
  p.pair.n2 = n2;
  p.pair.gate = c.repformer.attn2_has_gate;
  p.pair.smooth = c.smooth;
  p.pair.shift = shift;
  pack_both(storage, padded_blocks(f.query, nh, n2), p.pair.A, p.pair.At);
  if (!f.value.empty()) {
    pack_both(storage, padded_blocks(f.value, nh, n2), p.pair.B, p.pair.Bt);
    p.pair.B_stack = flat<T>(storage, padded_stack(stacked(f.value, nh), nh, n2));
    p.pair.bias = flat<T>(storage, f.b, n2);
    p.ln_gain = flat<T>(storage, f.gain, n2);
    p.ln_bias = flat<T>(storage, f.shift, n2);
  }
  if (!f.h2.empty()) p.pair.h2_weight = flat<T>(storage, f.h2);
}

/// Every input of linear1, and every block of it, begins at a padded column.
template <class T>
void linear1(Storage& storage, const FoldedLinear1& f, int n1, int n2, LayerParams<T>& p) {
  const auto width = [&](const FoldedLinear1::Piece& piece) {
    return piece.input == Linear1Input::conv || piece.input == Linear1Input::grrg ? n2 : n1;
  };
  for (const FoldedLinear1::Piece& piece : f.pieces) p.ncat += piece.repeat * width(piece);
  Matrix w(p.ncat, n1);
  int at = 0;
  for (const FoldedLinear1::Piece& piece : f.pieces) {
    int& begin = piece.input == Linear1Input::g1     ? p.cat_g1
                 : piece.input == Linear1Input::conv ? p.cat_conv
                 : piece.input == Linear1Input::grrg ? p.cat_grrg
                                                     : p.cat_drrd;
    begin = at;
    const int real = piece.w.rows / piece.repeat;
    for (int k = 0; k < piece.repeat; ++k, at += width(piece)) place(w, rows(piece.w, k * real, 1, real), at, 0);
  }
  pack_both(storage, w, p.w1, p.w1t);
  p.b1 = flat<T>(storage, f.b, n1);
}

}  // namespace

template <class T>
void Prepared<T>::prepare_layers(const Config& c, std::vector<FoldedLayer>& folded) {
  const RepformerConfig& r = c.repformer;
  smooth = c.smooth;
  direct_dist = r.direct_dist;
  use_sqrt_nnei = r.use_sqrt_nnei;
  axis = r.axis_neuron;
  nh1 = r.attn1_nhead;
  ln_eps = static_cast<T>(r.ln_eps);
  layers.resize(folded.size());
  for (std::size_t l = 0; l < folded.size(); ++l) {
    const FoldedLayer f = std::move(folded[l]);
    LayerParams<T>& p = layers[l];
    p.has = f.has;
    if (f.has.self) dense_layer(storage, f.self.w, f.self.b, n1, n1, p.self, p.self_t, p.self_b);
    if (f.has.conv) pack_both(storage, f.has.out_conv ? padded_to(f.conv, n2, n1) : padded_to(f.conv, n1, n2), p.P, p.Pt);
    linear1(storage, f.linear1, n1, n2, p);
    if (f.local_attention) {
      pack_both(storage, padded_blocks(f.local_attention->query, nh1, n1), p.att_q, p.att_qt);
      pack_both(storage, padded_stack(f.local_attention->value, nh1, n1), p.att_o, p.att_ot);
      p.att_b = flat<T>(storage, f.local_attention->b, n1);
    }
    p.g1_self = f.g1.index(Member::self);
    p.g1_conv = f.g1.index(Member::conv);
    p.g1_linear1 = f.g1.index(Member::linear1);
    p.g1_att = f.g1.index(Member::attention);
    p.res1 = residual<T>(storage, f.g1, n1);
    if (f.has.last) continue;

    dense_layer(storage, f.linear2.w, f.linear2.b, n2, n2, p.w2, p.w2t, p.b2);
    if (f.has.g1g1) pack_both(storage, padded_to(f.g1g1, n1, n2), p.gg, p.ggt);
    if (f.pair_attention) pair_attention(storage, *f.pair_attention, c, n2, shift, p);
    p.g2_linear2 = f.g2.index(Member::linear2);
    p.g2_g1g1 = f.g2.index(Member::g1g1);
    p.g2_att = f.g2.index(Member::attention);
    p.res2 = residual<T>(storage, f.g2, n2);
    if (f.has.update_h2) {
      p.h2_a = static_cast<T>(f.h2.a);
      p.h2_r = static_cast<T>(f.h2.terms[0].r(0, 0));
    }
  }
}

template <class T>
void Prepared<T>::prepare_fitting(const Config& c, const FoldedFitting& f) {
  nfparam = c.fitting.numb_fparam;
  naparam = c.fitting.numb_aparam;
  ncase = c.fitting.dim_case_embd;
  aparam_in_net = !f.aparam_avg.empty();
  fparam_avg = f.fparam_avg.a;
  fparam_inv_std = f.fparam_inv_std.a;
  aparam_avg = f.aparam_avg.a;
  aparam_inv_std = f.aparam_inv_std.a;
  case_embd = f.case_embd.a;
  if (c.fitting.default_fparam) default_fparam = *c.fitting.default_fparam;

  const std::size_t nhidden = f.layers.size();
  if (nhidden > max_fitting_layers)
    throw unsupported("a fitting net of ", nhidden, " layers (at most ", max_fitting_layers, " are supported)");
  fitting_layers_.resize(nhidden);
  for (std::size_t l = 0; l < nhidden; ++l) {
    const FoldedHidden& from = f.layers[l];
    FittingLayer<T>& layer = fitting_layers_[l];
    layer.in = from.in;
    layer.out = from.out;
    layer.skip = from.skip;
    dense_layer(storage, from.w, from.b, padded<T>(from.in), padded<T>(from.out), layer.w, layer.wt, layer.b);
    if (!from.idt.empty()) layer.idt = flat<T>(storage, from.idt, padded<T>(from.out));
  }
  fitting.nlayers = static_cast<int>(nhidden);
  fitting.layers = fitting_layers_.data();
  fitting.in = padded<T>(nhidden > 0 ? fitting_layers_[0].in : f.out.w.rows);
  fitting.act = activation<T>(f.act);
  fitting.width = f.out.w.cols;
  const int last = padded<T>(f.out.w.rows);
  if constexpr (!std::is_same_v<T, Sum<T>>)
    if (training_ == 0) {
      const int columns = fitting.width == 1 ? 1 : padded<T>(fitting.width);
      fitting.sum_w = flat<Sum<T>>(storage, padded_to(f.out.w, last, columns));
      fitting.sum_b = flat<Sum<T>>(storage, f.out.b, columns);
    }
  if (fitting.width == 1) {
    fitting.w_out = flat<T>(storage, f.out.w, last);
    fitting.b_out = static_cast<T>(f.out.b(0, 0));
    return;
  }
  fitting.stride = padded<T>(fitting.width);
  dense_layer(storage, f.out.w, f.out.b, last, fitting.stride, fitting.out, fitting.out_t, fitting.out_b);
}

template <class T>
void Prepared<T>::prepare_head(FoldedHead&& f) {
  head.bias = std::move(f.bias.a);
  head.scale = std::move(f.scale.a);
  head.shift = std::move(f.shift.a);
  for (const double counted : f.counted.a) head.excluded.push_back(counted == 0.0);
  head.vacuum = f.vacuum;
}

#define DPA2_INSTANTIATE_FOR(T)                                                        \
  template void Prepared<T>::prepare_layers(const Config&, std::vector<FoldedLayer>&); \
  template void Prepared<T>::prepare_fitting(const Config&, const FoldedFitting&);     \
  template void Prepared<T>::prepare_head(FoldedHead&&);
DPA2_INSTANTIATE_FOR(double)
DPA2_INSTANTIATE_FOR(float)
#undef DPA2_INSTANTIATE_FOR

}  // namespace dpa2
