// One repformer layer, forward (theory 8).
#include "graph/repformer.hpp"

namespace dpa2 {

template <class T>
const T* LayerForward<T>::pairs(int layer, int i, Arena& arena) const {
  const int n = n_repformer(i);
  const std::int64_t f0 = ws_.start_repformer.data()[i];
  return ws_.pairs.at(
      layer, f0, n, arena, [&](T* g2) { k_.g2_embed(n, m_.n2, g2, ws_.x.data() + f0, m_.g2_w, m_.g2_b, m_.act); },
      [&](int l, const T* g2, T* next) { update_pairs(l, i, g2, next, arena); });
}

template <class T>
void LayerForward<T>::tile(int layer, const Tile<T>& tile, Arena& arena) const {
  const Arena::Mark tile_mark = arena.mark();
  const LayerParams<R>& p = m_.layers[static_cast<std::size_t>(layer)];
  const Edges& edges = *frame_->edges;
  const int i0 = tile.i0, count = tile.count(), n1 = m_.n1, n2 = m_.n2;
  const long rows = static_cast<long>(count) * n1;
  const T* g1 = ws_.g1_before(layer);
  const T* own = g1 + static_cast<long>(i0) * n1;
  const NodeTerms<T>& kept = tile.kept;
  const auto room = [&](T* place, long n) { return place != nullptr ? place : arena.take<T>(n); };
  T* cat = room(kept.cat, static_cast<long>(count) * p.ncat);
  T* conv = p.has.out_conv ? room(kept.conv, rows) : nullptr;
  T* tq = p.has.local_attention ? arena.take<T>(rows * m_.nh1) : nullptr;
  T* o = p.has.local_attention ? room(kept.o, rows * m_.nh1) : nullptr;
  if (p.has.local_attention) dense(count, tq, own, n1, p.att_q, nullptr, false);
  for (int i = i0; i < tile.i1; ++i) {
    const Arena::Mark mark = arena.mark();
    const int n = n_repformer(i);
    const std::int64_t f0 = ws_.start_repformer.data()[i];
    const int* j = edges.j.data() + edges.start[static_cast<std::size_t>(i)];
    const T* g2 = pairs(layer, i, arena);
    T* s = arena.take<T>(n);
    T* f = arena.take<T>(3L * n);
    T* C = arena.take<T>(3L * (n1 > n2 ? n1 : n2));
    edge_factors(i, s, f, ws_.h2_before(layer) + 3 * f0);
    T* row = cat + static_cast<long>(i - i0) * p.ncat;
    if (p.has.conv) {
      const EdgeRows<T> pair{g2, n2, nullptr}, node{g1, n1, j};
      if (p.has.out_conv)
        k_.conv(n, conv + static_cast<long>(i - i0) * n1, pair, node, p.P, s, arena);
      else
        k_.conv(n, row + p.cat_conv, node, pair, p.P, s, arena);
    }
    if (p.has.grrg || tile.rot != nullptr) {
      T* moments = tile.rot != nullptr ? tile.rot + static_cast<long>(i - i0) * 3 * n2 : C;
      k_.sym_moments(n, n2, moments, f, EdgeRows<T>{g2, n2, nullptr});
      if (p.has.grrg) k_.sym_gram(n2, m_.axis, row + p.cat_grrg, moments);
    }
    if (p.has.drrd) {
      k_.sym_moments(n, n1, C, f, EdgeRows<T>{g1, n1, j});
      k_.sym_gram(n1, m_.axis, row + p.cat_drrd, C);
    }
    if (!p.has.self)
      for (int c = 0; c < n1; ++c) row[p.cat_g1 + c] = g1[static_cast<long>(i) * n1 + c];
    if (p.has.local_attention) {
      const long at = static_cast<long>(i - i0) * n1 * m_.nh1;
      k_.local_attention(n, n1, m_.nh1, o + at, tq + at, g1, j, m_.smooth ? ws_.w.data() + f0 : nullptr, ws_.fall_from(f0), m_.shift, pad_repformer(n), arena);
    }
    if (!p.has.last) update_pairs(layer, i, g2, ws_.pairs.place(layer + 1, f0), arena);
    arena.release(mark);
  }
  const T* terms[max_residual_terms] = {};
  if (p.has.self) {
    T* S = room(kept.self, rows);
    dense(count, S, own, n1, p.self, p.self_b, false);
    if (tile.dphi_self != nullptr)
      k_.activate_grad(m_.act, rows, S, tile.dphi_self, S);
    else
      k_.activate(m_.act, rows, S, S);
    terms[p.g1_self] = S;
  }
  if (p.has.out_conv) terms[p.g1_conv] = conv;
  T* Y = room(kept.linear1, rows);
  dense(count, Y, cat, p.ncat, p.w1, p.b1, false);
  if (tile.dphi_lin != nullptr)
    k_.activate_grad(m_.act, rows, Y, tile.dphi_lin, Y);
  else
    k_.activate(m_.act, rows, Y, Y);
  terms[p.g1_linear1] = Y;
  if (p.has.local_attention) {
    T* A = room(kept.attention, rows);
    dense(count, A, o, m_.nh1 * n1, p.att_o, p.att_b, false);
    terms[p.g1_att] = A;
  }
  k_.residual(count, n1, p.res1, tile.g1, own, terms);
  arena.release(tile_mark);
}

/// The updates of g2 and h2 of one centre: layer -> layer + 1; next (n, n2) may be g2 itself.
template <class T>
void LayerForward<T>::update_pairs(int layer, int i, const T* g2, T* next, Arena& arena) const {
  const Arena::Mark mark = arena.mark();
  const LayerParams<R>& p = m_.layers[static_cast<std::size_t>(layer)];
  const int n = n_repformer(i), m = padded<T>(n), n1 = m_.n1, n2 = m_.n2;
  const std::int64_t f0 = ws_.start_repformer.data()[i];
  const long size = static_cast<long>(n) * n2;
  const T* g1 = ws_.g1_before(layer);
  const T* h = ws_.h2_before(layer) + 3 * f0;
  const T* w = ws_.w.data() + f0;
  const int* j = frame_->edges->j.data() + frame_->edges->start[static_cast<std::size_t>(i)];
  const T* terms[max_residual_terms] = {};
  T* lin = arena.take<T>(size);
  dense(n, lin, g2, n2, p.w2, p.b2, false);
  if (ws_.extent.generous)
    k_.activate_grad(m_.act, size, lin, ws_.dphi_lin2[layer] + f0 * n2, lin);
  else
    k_.activate(m_.act, size, lin, lin);
  terms[p.g2_linear2] = lin;
  if (p.has.g1g1) {
    T* U = arena.take<T>(size);
    k_.g1g1(n, U, g1 + static_cast<long>(i) * n1, g1, j, p.gg, w, arena);
    terms[p.g2_g1g1] = U;
  }
  if (p.has.pair_map()) {
    T* c1 = arena.take<T>(static_cast<long>(n) * m);
    T* c2 = arena.take<T>(static_cast<long>(n) * m);
    T* out = arena.take<T>(size);
    T* dh = p.has.update_h2 ? arena.take<T>(3L * n) : nullptr;
    T *z = nullptr, *inv_sigma = nullptr;
    if (p.has.pair_attention) {
      z = ws_.extent.generous ? ws_.norm[layer] + f0 * n2 : arena.take<T>(size);
      inv_sigma = ws_.extent.generous ? ws_.inv_sigma[layer] + f0 : arena.take<T>(n);
    }
    k_.attention_factors(n, m, m_.smooth, c1, c2, h, w, ws_.fall_from(f0), arena);
    k_.pair_attention(p.pair, {n, m, g2, h, c1, c2, pad_repformer(n)}, z, dh, arena);
    if (p.has.pair_attention) {
      k_.layer_norm(n, n2, m_.n2_real, m_.ln_eps, out, z, inv_sigma, z, p.ln_gain, p.ln_bias);
      terms[p.g2_att] = out;
    }
    if (p.has.update_h2) {
      T* next_h = ws_.h2_before(layer + 1) + 3 * f0;
      for (int e = 0; e < 3 * n; ++e) next_h[e] = p.h2_a * h[e] + p.h2_r * dh[e];
    }
  }
  k_.residual(n, n2, p.res2, next, g2, terms);
  arena.release(mark);
}

template class LayerForward<double>;
template class LayerForward<float>;
template class LayerForward<Dual<double>>;
template class LayerForward<Dual<float>>;

}  // namespace dpa2
