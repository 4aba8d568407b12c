// One repformer layer, backward: gradients of the layer's output to its input (theory 12.3-12.11).
#include "graph/repformer.hpp"

namespace dpa2 {

template <class T>
void LayerBackward<T>::tile(int layer, int t, const Tile<T>& tile, const T* dnext, const T* drot, Arena& arena) const {
  const Arena::Mark tile_mark = arena.mark();
  const LayerParams<R>& p = m_.layers[static_cast<std::size_t>(layer)];
  const Edges& edges = *frame_->edges;
  const int i0 = tile.i0, count = tile.count(), n1 = m_.n1, n2 = m_.n2, nh = m_.nh1;
  const long rows = static_cast<long>(count) * n1, row0 = static_cast<long>(i0) * n1;
  const T* g1 = ws_.g1_before(layer);
  T* acc = ws_.acc[static_cast<std::size_t>(t)].data();
  T* own = acc + static_cast<long>(i0 - ws_.partition.range(t).begin) * n1;

  LayerGradients<R>* const g = gradients(t) != nullptr ? &gradients(t)->layers[static_cast<std::size_t>(layer)] : nullptr;
  const NodeTerms<T>& kept = tile.kept;
  T* terms[max_residual_terms] = {};
  const T* updates[max_residual_terms] = {};
  for (int k = 0; k < p.res1.nterms; ++k) terms[k] = arena.take<T>(rows);
  if (g != nullptr) {
    if (p.has.self) updates[p.g1_self] = kept.self;
    if (p.has.out_conv) updates[p.g1_conv] = kept.conv;
    if (p.has.local_attention) updates[p.g1_att] = kept.attention;
    updates[p.g1_linear1] = kept.linear1;
  }
  k_.residual_backward(count, n1, p.res1, own, terms, g != nullptr ? g->res1 : nullptr, updates, dnext);
  if (p.has.self) {
    T* dS = terms[p.g1_self];
    T* dphi = tile.dphi_self;
    if (dphi == nullptr) {
      T* S = arena.take<T>(rows);
      dphi = arena.take<T>(rows);
      dense(count, S, g1 + row0, n1, p.self, p.self_b, false);
      k_.activate_grad(m_.act, rows, S, dphi, S);
    }
    k_.activate_backward(rows, dS, dS, dphi);
    dense(count, own, dS, n1, p.self_t, nullptr, true);
    if (g != nullptr) dense_gradient(count, p.self, g->self, g->self_b, g1 + row0, n1, dS);
  }
  T* dY = terms[p.g1_linear1];
  T* dcat = arena.take<T>(static_cast<long>(count) * p.ncat);
  k_.activate_backward(rows, dY, dY, tile.dphi_lin);
  dense(count, dcat, dY, n1, p.w1t, nullptr, false);
  if (g != nullptr) dense_gradient(count, p.w1, g->w1, g->b1, kept.cat, p.ncat, dY);
  T *tq = nullptr, *dtq = nullptr, *dout = nullptr;
  if (p.has.local_attention) {
    tq = arena.take<T>(rows * nh);
    dtq = arena.take<T>(rows * nh);
    dout = arena.take<T>(rows * nh);
    dense(count, tq, g1 + row0, n1, p.att_q, nullptr, false);
    dense(count, dout, terms[p.g1_att], n1, p.att_ot, nullptr, false);
    if (g != nullptr) dense_gradient(count, p.att_o, g->att_o, g->att_b, kept.o, nh * n1, terms[p.g1_att]);
  }

  for (int i = i0; i < tile.i1; ++i) {
    const Arena::Mark mark = arena.mark();
    const int n = n_repformer(i);
    const std::int64_t f0 = ws_.start_repformer.data()[i];
    const std::int64_t e0 = edges.start[static_cast<std::size_t>(i)];
    const int* j = edges.j.data() + e0;
    const int* scatter = ws_.partition.local() + e0;
    const T* g2 = forward_.pairs(layer, i, arena);
    const T* h = ws_.h2_before(layer) + 3 * f0;
    T* dg2 = ws_.pairs.gradient(f0);
    T* dh = ws_.dh2.data() + 3 * f0;
    T* dw = ws_.dw.data() + f0;
    const T* w = ws_.w.data() + f0;
    T* s = arena.take<T>(n);
    T* ds = arena.take<T>(n);
    T* f = arena.take<T>(3L * n);
    T* df = arena.take<T>(3L * n);
    T* C = arena.take<T>(3L * (n1 > n2 ? n1 : n2));
    T* dC = arena.take<T>(3L * (n1 > n2 ? n1 : n2));
    // First the updates of g2 and h2: they turn the gradients of the layer's output into those of its input.
    if (p.has.last) {
      for (long c = 0; c < static_cast<long>(n) * n2; ++c) dg2[c] = T(0);
      for (int c = 0; c < 3 * n; ++c) dh[c] = T(0);
      for (int c = 0; c < n; ++c) dw[c] = T(0);
    } else {
      pairs(layer, t, i, g2, arena);
    }
    edge_factors(i, s, f, h);
    for (int e = 0; e < n; ++e) ds[e] = T(0);
    for (int e = 0; e < 3 * n; ++e) df[e] = T(0);
    const T* row = dcat + static_cast<long>(i - i0) * p.ncat;
    T* dg1_i = own + static_cast<long>(i - i0) * n1;
    if (p.has.conv) {
      const EdgeRows<T> pair{g2, n2, nullptr}, node{g1, n1, j};
      R* dP = g != nullptr ? g->P : nullptr;
      if (p.has.out_conv)
        k_.conv_backward(n, dg2, n2, nullptr, acc, n1, scatter, ds, dP, terms[p.g1_conv] + static_cast<long>(i - i0) * n1, pair, node, p.P,
                         p.Pt, s, arena);
      else
        k_.conv_backward(n, acc, n1, scatter, dg2, n2, nullptr, ds, dP, row + p.cat_conv, node, pair, p.P, p.Pt, s, arena);
    }
    if (p.has.grrg) {
      const EdgeRows<T> X{g2, n2, nullptr};
      k_.sym_moments(n, n2, C, f, X);
      k_.sym_gram_backward(n2, m_.axis, dC, row + p.cat_grrg, C);
      k_.sym_moments_backward(n, n2, df, dg2, n2, nullptr, dC, f, X);
    }
    if (p.has.drrd) {
      const EdgeRows<T> X{g1, n1, j};
      k_.sym_moments(n, n1, C, f, X);
      k_.sym_gram_backward(n1, m_.axis, dC, row + p.cat_drrd, C);
      k_.sym_moments_backward(n, n1, df, acc, n1, scatter, dC, f, X);
    }
    if (drot != nullptr)
      k_.sym_moments_backward(n, n2, df, dg2, n2, nullptr, drot + static_cast<long>(i - i0) * 3 * n2, f, EdgeRows<T>{g2, n2, nullptr});
    const R kn = kappa_n(n), kh = kappa_h(n);
    for (int e = 0; e < n; ++e) {
      T along = 0;
      for (int x = 0; x < 3; ++x) {
        dh[3 * e + x] += kh * w[e] * df[3 * e + x];
        along += h[3 * e + x] * df[3 * e + x];
      }
      dw[e] += kn * ds[e] + kh * along;
    }
    if (!p.has.self)
      for (int c = 0; c < n1; ++c) dg1_i[c] += row[p.cat_g1 + c];
    if (p.has.local_attention) {
      const long at = static_cast<long>(i - i0) * n1 * nh;
      k_.local_attention_backward(n, n1, nh, dtq + at, acc, scatter, dw, dout + at, tq + at, g1, j, m_.smooth ? w : nullptr, ws_.fall_from(f0), m_.shift,
                                  pad_repformer(n), arena);
    }
    arena.release(mark);
  }
  if (p.has.local_attention) {
    dense(count, own, dtq, nh * n1, p.att_qt, nullptr, true);
    if (g != nullptr) dense_gradient(count, p.att_q, g->att_q, nullptr, g1 + row0, n1, dtq);
  }
  arena.release(tile_mark);
}

/// In place: dg2, dh2 of layer + 1 become those of `layer`; dw +=; the g1g1 term adds to dg1.
template <class T>
void LayerBackward<T>::pairs(int layer, int t, int i, const T* g2, Arena& arena) const {
  const Arena::Mark mark = arena.mark();
  const LayerParams<R>& p = m_.layers[static_cast<std::size_t>(layer)];
  const ThreadRange& range = ws_.partition.range(t);
  const int n = n_repformer(i), n1 = m_.n1, n2 = m_.n2;
  const std::int64_t f0 = ws_.start_repformer.data()[i], e0 = frame_->edges->start[static_cast<std::size_t>(i)];
  const long size = static_cast<long>(n) * n2;
  const int* j = frame_->edges->j.data() + e0;
  const T* g1 = ws_.g1_before(layer);
  const T* w = ws_.w.data() + f0;
  T* dg2 = ws_.pairs.gradient(f0);
  T* dw = ws_.dw.data() + f0;

  T* dout = arena.take<T>(size);
  for (long c = 0; c < size; ++c) {
    dout[c] = dg2[c];
    dg2[c] = T(0);
  }
  T* terms[max_residual_terms] = {};
  for (int k = 0; k < p.res2.nterms; ++k) terms[k] = arena.take<T>(size);
  LayerGradients<R>* const g = gradients(t) != nullptr ? &gradients(t)->layers[static_cast<std::size_t>(layer)] : nullptr;
  const T* updates[max_residual_terms] = {};
  const bool vectors = g != nullptr && g->res2[0] != nullptr;  // the updates are wanted as well
  const PairAttentionTape<T> tape = pair_attention(layer, i, g2, g, arena);
  if (p.has.pair_attention) updates[p.g2_att] = tape.normal;
  T* lin = arena.take<T>(size);
  T* dphi = ws_.extent.generous ? ws_.dphi_lin2[layer] + f0 * n2 : arena.take<T>(size);
  if (!ws_.extent.generous || vectors) {
    dense(n, lin, g2, n2, p.w2, p.b2, false);
    k_.activate_grad(m_.act, size, lin, dphi, lin);
    updates[p.g2_linear2] = lin;
  }
  if (vectors && p.has.g1g1) {
    T* U = arena.take<T>(size);
    k_.g1g1(n, U, g1 + static_cast<long>(i) * n1, g1, j, p.gg, w, arena);
    updates[p.g2_g1g1] = U;
  }
  k_.residual_backward(n, n2, p.res2, dg2, terms, vectors ? g->res2 : nullptr, updates, dout);

  k_.activate_backward(size, lin, terms[p.g2_linear2], dphi);
  dense(n, dg2, lin, n2, p.w2t, nullptr, true);
  if (g != nullptr) dense_gradient(n, p.w2, g->w2, g->b2, g2, n2, lin);
  if (p.has.g1g1) {
    T* acc = ws_.acc[static_cast<std::size_t>(t)].data();
    k_.g1g1_backward(n, acc + static_cast<long>(i - range.begin) * n1, acc, ws_.partition.local() + e0, dw, g != nullptr ? g->gg : nullptr,
                     terms[p.g2_g1g1], g1 + static_cast<long>(i) * n1, g1, j, p.ggt, w, arena);
  }
  pair_attention_backward(layer, i, tape, p.has.pair_attention ? terms[p.g2_att] : nullptr, g, arena);
  arena.release(mark);
}

/// The norm's part is kept, or computed again.
template <class T>
PairAttentionTape<T> LayerBackward<T>::pair_attention(int layer, int i, const T* g2, const LayerGradients<R>* g, Arena& arena) const {
  const LayerParams<R>& p = m_.layers[static_cast<std::size_t>(layer)];
  PairAttentionTape<T> tape;
  if (!p.has.pair_map()) return tape;
  const int n = n_repformer(i), m = padded<T>(n), n2 = m_.n2;
  const std::int64_t f0 = ws_.start_repformer.data()[i];
  const long size = static_cast<long>(n) * n2;
  const T* h = ws_.h2_before(layer) + 3 * f0;
  const bool norm = p.has.pair_attention, again = norm && !ws_.extent.generous;
  tape.zh = again ? arena.take<T>(size) : norm ? ws_.norm[layer] + f0 * n2 : nullptr;
  tape.inv_sigma = again ? arena.take<T>(n) : norm ? ws_.inv_sigma[layer] + f0 : nullptr;
  T* c1 = arena.take<T>(static_cast<long>(n) * m);
  T* c2 = arena.take<T>(static_cast<long>(n) * m);
  tape.in = {n, m, g2, h, c1, c2, pad_repformer(n)};
  k_.attention_factors(n, m, m_.smooth, c1, c2, h, ws_.w.data() + f0, ws_.fall_from(f0), arena);
  if (g != nullptr && g->h2_r != nullptr) tape.update_h = arena.take<T>(3L * n);
  if (norm && g != nullptr && g->res2[0] != nullptr) tape.normal = arena.take<T>(size);
  if (again || tape.update_h != nullptr) k_.pair_attention(p.pair, tape.in, again ? tape.zh : nullptr, tape.update_h, arena);
  if (again) {
    T* out = tape.normal != nullptr ? tape.normal : arena.take<T>(size);
    k_.layer_norm(n, n2, m_.n2_real, m_.ln_eps, out, tape.zh, tape.inv_sigma, tape.zh, p.ln_gain, p.ln_bias);
  }
  if (tape.normal != nullptr)  // also where it was just there: the same bits whether zh is kept or not
    for (int e = 0; e < n; ++e)
      for (int c = 0; c < n2; ++c)
        tape.normal[static_cast<long>(e) * n2 + c] = tape.zh[static_cast<long>(e) * n2 + c] * p.ln_gain[c] + p.ln_bias[c];
  return tape;
}

/// In place: dz (n, n2) or null, the gradient of the norm's output; dg2 +=, dh2 of layer + 1 becomes that of `layer`, dw +=.
template <class T>
void LayerBackward<T>::pair_attention_backward(int layer, int i, const PairAttentionTape<T>& tape, T* dz, LayerGradients<R>* g,
                                               Arena& arena) const {
  const LayerParams<R>& p = m_.layers[static_cast<std::size_t>(layer)];
  if (!p.has.pair_map()) return;
  const PairAttentionInput<T>& in = tape.in;
  const int n = in.n, m = in.m, n2 = m_.n2;
  const std::int64_t f0 = ws_.start_repformer.data()[i];
  T* dg2 = ws_.pairs.gradient(f0);
  T* dh2 = ws_.dh2.data() + 3 * f0;
  T* dw = ws_.dw.data() + f0;
  T* dc1 = arena.take<T>(static_cast<long>(n) * m);
  T* dc2 = arena.take<T>(static_cast<long>(n) * m);
  T* ddh = p.has.update_h2 ? arena.take<T>(3L * n) : nullptr;
  if (dz != nullptr)
    k_.layer_norm_backward(n, n2, m_.n2_real, dz, g != nullptr ? g->ln_gain : nullptr, g != nullptr ? g->ln_bias : nullptr, dz, tape.zh,
                           tape.inv_sigma, p.ln_gain);
  if (tape.update_h != nullptr)
    for (int e = 0; e < 3 * n; ++e) *g->h2_r += math::gradient_of(dh2[e] * tape.update_h[e]);
  if (p.has.update_h2)
    for (int e = 0; e < 3 * n; ++e) {
      ddh[e] = p.h2_r * dh2[e];
      dh2[e] *= p.h2_a;
    }
  k_.pair_attention_backward(p.pair, in, dg2, dh2, dc1, dc2, g != nullptr ? &g->pair : nullptr, dz, ddh, arena);
  k_.attention_factors_backward(n, m, m_.smooth, dh2, dw, dc1, dc2, in.h2, ws_.w.data() + f0, arena);
}

template class LayerBackward<double>;
template class LayerBackward<float>;
template class LayerBackward<Dual<double>>;
template class LayerBackward<Dual<float>>;

}  // namespace dpa2
