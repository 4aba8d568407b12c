// One repformer layer, forward (specification, section 8).
#include <algorithm>
#include <cmath>

#include "math/attention.hpp"
#include "model/evaluate.hpp"

namespace dpa2 {

template <class T>
T Evaluator<T>::kappa_n(int n) const {
  return m_.smooth ? T(1) / static_cast<T>(m_.nsel2) : T(1) / (T(1e-4) + static_cast<T>(n));
}

template <class T>
T Evaluator<T>::kappa_h(int n) const {
  if (!m_.use_sqrt_nnei) return kappa_n(n);
  return m_.smooth ? T(1) / std::sqrt(static_cast<T>(m_.nsel2)) : T(1) / (T(1e-4) + std::sqrt(static_cast<T>(n)));
}

/// Per edge: s (n) = kappa_n w, the weight in the convolution; f (n, 3) = kappa_h w h2, the weight in the moments.
template <class T>
void Evaluator<T>::edge_factors(int i, T* s, T* f, const T* h2) const {
  const int n = n_rep(i);
  const T* w = ws_.w.data() + ws_.start2.data()[i];
  const T kn = kappa_n(n), kh = kappa_h(n);
  for (int e = 0; e < n; ++e) {
    s[e] = kn * w[e];
    for (int x = 0; x < 3; ++x) f[3 * e + x] = kh * w[e] * h2[3 * e + x];
  }
}

/// Where the g2 (n, n2) of centre i before a layer other than the first goes.
template <class T>
T* Evaluator<T>::pairs_place(int layer, int i) {
  const std::ptrdiff_t at = static_cast<std::ptrdiff_t>(ws_.start2.data()[i]) * m_.n2;
  const bool kept = ws_.extent.gradient && layer % ws_.extent.keep == 0;
  return (kept ? ws_.g2[static_cast<std::size_t>(layer / ws_.extent.keep - 1)].data() : ws_.dg2.data()) + at;
}

/// The g2 (n, n2) of centre i before a layer: kept, still there, or computed again.
template <class T>
const T* Evaluator<T>::pairs(int layer, int i, Arena& arena) {
  const int n = n_rep(i), from = layer - layer % ws_.extent.keep;
  const long size = static_cast<long>(n) * m_.n2;
  if (layer == 0) {
    T* g2 = arena.take<T>(size);
    k_.g2_embed(n, m_.n2, g2, ws_.x.data() + ws_.start2.data()[i], m_.g2_w, m_.g2_b, m_.act);
    return g2;
  }
  const T* place = pairs_place(layer, i);
  if (ws_.extent.gradient && from == layer) return place;
  if (current_) {
    if (!ws_.extent.gradient || layer + 1 < ws_.extent.nlayers) return place;
    T* g2 = arena.take<T>(size);  // its gradient is about to take the place
    std::copy_n(place, size, g2);
    return g2;
  }
  const T* g2 = pairs(from, i, arena);
  for (int l = from; l < layer; ++l) {
    T* next = arena.take<T>(size);
    forward_pairs(l, i, g2, next, arena);
    g2 = next;
  }
  return g2;
}

template <class T>
void Evaluator<T>::forward_layer(int layer, const Tile& tile, Arena& arena) {
  const Arena::Mark tile_mark = arena.mark();
  const LayerParams<T>& p = m_.layers[static_cast<std::size_t>(layer)];
  const Edges& edges = *frame_->edges;
  const int i0 = tile.i0, count = tile.count(), n1 = m_.n1, n2 = m_.n2;
  const long rows = static_cast<long>(count) * n1;
  const T* g1 = ws_.g1[static_cast<std::size_t>(layer)].data();
  const T* own = g1 + static_cast<long>(i0) * n1;
  T* cat = arena.take<T>(static_cast<long>(count) * p.ncat);
  T* conv = p.has.out_conv ? arena.take<T>(rows) : nullptr;
  T* tq = p.has.local_attention ? arena.take<T>(rows * m_.nh1) : nullptr;
  T* o = p.has.local_attention ? arena.take<T>(rows * m_.nh1) : nullptr;
  if (p.has.local_attention) dense(count, tq, own, n1, p.att_q, nullptr, false);
  for (int i = i0; i < tile.i1; ++i) {
    const Arena::Mark mark = arena.mark();
    const int n = n_rep(i);
    const std::int64_t f0 = ws_.start2.data()[i];
    const int* j = edges.j.data() + edges.start[static_cast<std::size_t>(i)];
    const T* g2 = pairs(layer, i, arena);
    T* s = arena.take<T>(n);
    T* f = arena.take<T>(3L * n);
    T* C = arena.take<T>(3L * (n1 > n2 ? n1 : n2));
    edge_factors(i, s, f, h2(layer) + 3 * f0);
    T* row = cat + static_cast<long>(i - i0) * p.ncat;
    if (p.has.conv) {
      const EdgeRows<T> pair{g2, n2, nullptr}, node{g1, n1, j};
      if (p.has.out_conv)
        k_.conv(n, conv + static_cast<long>(i - i0) * n1, pair, node, p.P, s, arena);
      else
        k_.conv(n, row + p.cat_conv, node, pair, p.P, s, arena);
    }
    if (p.has.grrg) {
      k_.sym_moments(n, n2, C, f, EdgeRows<T>{g2, n2, nullptr});
      k_.sym_gram(n2, m_.axis, row + p.cat_grrg, C);
    }
    if (p.has.drrd) {
      k_.sym_moments(n, n1, C, f, EdgeRows<T>{g1, n1, j});
      k_.sym_gram(n1, m_.axis, row + p.cat_drrd, C);
    }
    if (!p.has.self)
      for (int c = 0; c < n1; ++c) row[p.cat_g1 + c] = g1[static_cast<long>(i) * n1 + c];
    if (p.has.local_attention) {
      const long at = static_cast<long>(i - i0) * n1 * m_.nh1;
      k_.local_attention(n, n1, m_.nh1, o + at, tq + at, g1, j, m_.smooth ? ws_.w.data() + f0 : nullptr, m_.smooth ? T(math::attention_shift) : T(0), pad2(n),
                         arena);
    }
    if (!p.has.last) forward_pairs(layer, i, g2, pairs_place(layer + 1, i), arena);
    arena.release(mark);
  }
  const T* terms[max_residual_terms] = {};
  if (p.has.self) {
    T* S = arena.take<T>(rows);
    dense(count, S, own, n1, p.self, p.self_b, false);
    if (tile.dphi_self != nullptr)
      k_.activate_grad(m_.act, rows, S, tile.dphi_self, S);
    else
      k_.activate(m_.act, rows, S, S);
    terms[p.g1_self] = S;
  }
  if (p.has.out_conv) terms[p.g1_conv] = conv;
  T* Y = arena.take<T>(rows);
  dense(count, Y, cat, p.ncat, p.w1, p.b1, false);
  if (tile.dphi_lin != nullptr)
    k_.activate_grad(m_.act, rows, Y, tile.dphi_lin, Y);
  else
    k_.activate(m_.act, rows, Y, Y);
  terms[p.g1_linear1] = Y;
  if (p.has.local_attention) {
    T* A = arena.take<T>(rows);
    dense(count, A, o, m_.nh1 * n1, p.att_o, p.att_b, false);
    terms[p.g1_att] = A;
  }
  k_.residual(count, n1, p.res1, tile.g1, own, terms);
  arena.release(tile_mark);
}

/// The updates of g2 and h2 of one centre: layer -> layer + 1; next (n, n2) may be g2 itself.
template <class T>
void Evaluator<T>::forward_pairs(int layer, int i, const T* g2, T* next, Arena& arena) {
  const Arena::Mark mark = arena.mark();
  const LayerParams<T>& p = m_.layers[static_cast<std::size_t>(layer)];
  const std::size_t l = static_cast<std::size_t>(layer);
  const int n = n_rep(i), m = padded<T>(n), n1 = m_.n1, n2 = m_.n2;
  const std::int64_t f0 = ws_.start2.data()[i];
  const long size = static_cast<long>(n) * n2;
  const T* g1 = ws_.g1[l].data();
  const T* h = h2(layer) + 3 * f0;
  const T* w = ws_.w.data() + f0;
  const int* j = frame_->edges->j.data() + frame_->edges->start[static_cast<std::size_t>(i)];
  const T* terms[max_residual_terms] = {};
  T* lin = arena.take<T>(size);
  dense(n, lin, g2, n2, p.w2, p.b2, false);
  if (ws_.extent.generous)
    k_.activate_grad(m_.act, size, lin, ws_.dphi_lin2[l].data() + f0 * n2, lin);
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
      z = ws_.extent.generous ? ws_.norm[l].data() + f0 * n2 : arena.take<T>(size);
      inv_sigma = ws_.extent.generous ? ws_.inv_sigma[l].data() + f0 : arena.take<T>(n);
    }
    k_.attention_factors(n, m, m_.smooth, c1, c2, h, w, arena);
    k_.pair_attention(p.pair, {n, m, g2, h, c1, c2, pad2(n)}, z, dh, arena);
    if (p.has.pair_attention) {
      k_.layer_norm(n, n2, m_.n2_real, m_.ln_eps, out, z, inv_sigma, z, p.ln_gamma, p.ln_beta);
      terms[p.g2_att] = out;
    }
    if (p.has.update_h2) {
      T* next_h = ws_.h2[l + 1].data() + 3 * f0;
      for (int e = 0; e < 3 * n; ++e) next_h[e] = p.h2_a * h[e] + p.h2_r * dh[e];
    }
  }
  k_.residual(n, n2, p.res2, next, g2, terms);
  arena.release(mark);
}

/// rot_mat of centre i (n2, 3): the vector moments of the last g2 (specification, 8.12).
template <class T>
void Evaluator<T>::rotation(int i, Arena& arena, double* out) {
  const Arena::Mark mark = arena.mark();
  const int n = n_rep(i), n2 = m_.n2, last = static_cast<int>(m_.layers.size()) - 1;
  const std::int64_t f0 = ws_.start2.data()[i];
  T* s = arena.take<T>(n);
  T* f = arena.take<T>(3L * n);
  T* C = arena.take<T>(3L * n2);
  edge_factors(i, s, f, h2(last) + 3 * f0);
  k_.sym_moments(n, n2, C, f, EdgeRows<T>{pairs(last, i, arena), n2, nullptr});
  for (int c = 0; c < m_.n2_real; ++c)
    for (int x = 0; x < 3; ++x) out[3 * c + x] = static_cast<double>(C[x * n2 + c]);
  arena.release(mark);
}

#define DPA2_INSTANTIATE_FOR(T)                                          \
  template T Evaluator<T>::kappa_n(int) const;                           \
  template T Evaluator<T>::kappa_h(int) const;                           \
  template void Evaluator<T>::edge_factors(int, T*, T*, const T*) const; \
  template const T* Evaluator<T>::pairs(int, int, Arena&);               \
  template T* Evaluator<T>::pairs_place(int, int);                       \
  template void Evaluator<T>::forward_layer(int, const Tile&, Arena&);   \
  template void Evaluator<T>::forward_pairs(int, int, const T*, T*, Arena&); \
  template void Evaluator<T>::rotation(int, Arena&, double*);
DPA2_INSTANTIATE_FOR(double)
DPA2_INSTANTIATE_FOR(float)

}  // namespace dpa2
