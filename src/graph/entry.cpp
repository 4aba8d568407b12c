#include "graph/entry.hpp"

#include "graph/precise_rows.hpp"

namespace dpa2 {

template <class T>
auto Entry<T>::repinit_pad(int i) const -> RepinitPad<R> {
  RepinitPad<R> pad;
  if (!m_.has_pad_repinit) return pad;
  const int ti = type(i), t0 = frame_->pad_type < 0 ? 0 : frame_->pad_type;
  pad.weight = static_cast<R>(frame_->edges->pad_repinit[static_cast<std::size_t>(i)]) * m_.repinit.inv_nsel;
  pad.R = m_.pad_R + 4L * ti;
  pad.G = m_.pad_G + (static_cast<long>(t0) * m_.ntypes + ti) * m_.repinit.ng;
  return pad;
}

template <class T>
auto Entry<T>::three_body_pad(int i) const -> ThreeBodyPad<R> {
  ThreeBodyPad<R> pad;
  if (!m_.has_pad_three) return pad;
  pad.multiplicity = static_cast<R>(frame_->edges->pad_three[static_cast<std::size_t>(i)]);
  for (int x = 0; x < 3; ++x) pad.v[x] = m_.pad_v[3L * type(i) + x];
  pad.type = frame_->pad_type < 0 ? 0 : frame_->pad_type;
  return pad;
}

/// The environment of centre i as the three-body block sees it; memory from the arena.
template <class T>
Lanes<T> Entry<T>::three_body_lanes(int i, Arena& arena) const {
  const Edges& edges = *frame_->edges;
  const std::size_t e0 = static_cast<std::size_t>(edges.start[static_cast<std::size_t>(i)]);
  const int n = edges.n_three[static_cast<std::size_t>(i)], m = padded<T>(n), ti = type(i);
  const Lanes<T> e{n, m, arena.take<T>(3L * m), arena.take<T>(m), arena.take<T>(4L * m), arena.take<T>(m), arena.take<int>(m)};
  for (int k = 0; k < n; ++k) e.index[k] = type(edges.j[e0 + static_cast<std::size_t>(k)]);
  load_lanes(*frame_, i, n, m, e.d, e.r);
  k_.env_mat(n, m, e.R, e.sw, e.d, e.r, m_.stats_three.cut, m_.stats_three.mean + 4L * ti, m_.stats_three.inv_std + 4L * ti);
  return e;
}

/// R and sw of the repformer's edges of centre i, and what the switch lacks to 1, if attention takes it.
template <class T>
void Entry<T>::repformer_rows(int i, const Lanes<T>& e, Arena& arena) const {
  const int ti = type(i);
  if constexpr (by_fall<T>) {
    T* fall = ws_.fall_from(ws_.start_repformer.data()[i]);
    PreciseRows<T>(*frame_, i, e.n, m_.exact_repformer, ti, arena).forward(e.m, e.R, e.sw, fall);
  } else {
    const BlockParams<R>& s = m_.stats_repformer;
    k_.env_mat(e.n, e.m, e.R, e.sw, e.d, e.r, s.cut, s.mean + 4L * ti, s.inv_std + 4L * ti);
  }
}

/// gamma (3, lanes) += the gradient of the edge vectors, given those of R and sw in their places.
template <class T>
void Entry<T>::repformer_rows_backward(int i, const Lanes<T>& e, T* gamma, Arena& arena) const {
  const int ti = type(i);
  if constexpr (by_fall<T>) {
    PreciseRows<T>(*frame_, i, e.n, m_.exact_repformer, ti, arena).backward(e.m, gamma, e.R, e.sw, arena);
  } else {
    const BlockParams<R>& s = m_.stats_repformer;
    k_.env_mat_backward(e.m, gamma, e.R, e.sw, e.d, e.r, s.cut, s.inv_std + 4L * ti);
  }
}

template <class T>
void Entry<T>::forward(int i0, int i1, Arena& arena) const {
  const Arena::Mark tile_mark = arena.mark();
  const int count = i1 - i0;
  const long first = static_cast<long>(i0) * m_.nd;
  T* D = ws_.extent.weights ? ws_.D.data() + first : arena.take<T>(static_cast<long>(count) * m_.nd);
  T* M = arena.take<T>(4L * padded<T>(m_.repinit.ng));
  for (long c = 0; c < static_cast<long>(count) * m_.nd; ++c) D[c] = T(0);
  for (int i = i0; i < i1; ++i) {
    const Arena::Mark mark = arena.mark();
    T* row = D + static_cast<long>(i - i0) * m_.nd;
    const Lanes<T> far = repinit_lanes(m_, k_, *frame_, i, arena);
    k_.repinit(m_.repinit, far.n, far.m, row, M, far.R, far.sw, far.index, repinit_pad(i), arena);
    if (m_.use_three) {
      const Lanes<T> e = three_body_lanes(i, arena);
      k_.three_body(m_.three, e.n, e.m, row + m_.nd_repinit, e.R + e.m, e.sw, e.index, three_body_pad(i), arena);
    }
    const int n2 = n_repformer(i), m2 = padded<T>(n2);
    const std::int64_t f0 = ws_.start_repformer.data()[i];
    T* x = ws_.x.data() + f0;
    T* w = ws_.w.data() + f0;
    T* h = ws_.h2_before(0) + 3 * f0;
    T *d = far.d, *r = far.r, *env = far.R, *sw = far.sw;  // repinit has done with them
    load_lanes(*frame_, i, n2, m2, d, r);
    repformer_rows(i, {n2, m2, d, r, env, sw, nullptr}, arena);
    for (int e = 0; e < n2; ++e) {
      w[e] = m_.smooth ? sw[e] : T(1);
      x[e] = m_.direct_dist ? r[e] * m_.inv_rcut : env[e];
      for (int c = 0; c < 3; ++c) h[3 * e + c] = m_.direct_dist ? d[c * m2 + e] * m_.inv_rcut : env[(1 + c) * m2 + e];
    }
    arena.release(mark);
  }
  T* g1 = ws_.g1_before(0) + static_cast<long>(i0) * m_.n1;
  const long size = static_cast<long>(count) * m_.n1;
  if (m_.shape_identity)
    for (long c = 0; c < size; ++c) g1[c] = D[c];
  else
    dense(count, g1, D, m_.nd, m_.shape, nullptr, false);
  if (m_.tebd_term != nullptr)
    for (int i = i0; i < i1; ++i)
      for (int c = 0; c < m_.n1; ++c) g1[static_cast<long>(i - i0) * m_.n1 + c] += m_.tebd_term[static_cast<long>(type(i)) * m_.n1 + c];
  if (ws_.extent.gradient)
    k_.activate_grad(m_.act, size, g1, ws_.dphi_entry.data() + static_cast<long>(i0) * m_.n1, g1);
  else
    k_.activate(m_.act, size, g1, g1);
  arena.release(tile_mark);
}

/// gamma (3, lanes) = gradient of the repformer's first g2, h2 and switch with respect to the first n_repformer edge vectors of i.
template <class T>
void Entry<T>::backward_repformer_edges(int i, Arena& arena, int lanes, T* gamma) const {
  const Arena::Mark mark = arena.mark();
  const int n = n_repformer(i), m = padded<T>(n);
  const std::int64_t f0 = ws_.start_repformer.data()[i];
  T* d = arena.take<T>(3L * m);
  T* r = arena.take<T>(m);
  T* dR = arena.take<T>(4L * m);
  T* dsw = arena.take<T>(m);
  T* g = arena.take<T>(3L * m);
  load_lanes(*frame_, i, n, m, d, r);
  for (int e = 0; e < 4 * m; ++e) dR[e] = T(0);
  for (int e = 0; e < 3 * m; ++e) g[e] = T(0);
  k_.g2_embed_backward(n, m_.n2, dR, nullptr, nullptr, ws_.pairs.gradient(f0), ws_.x.data() + f0, m_.g2_w, m_.g2_b, m_.act, arena);
  const T* dh = ws_.dh2.data() + 3 * f0;
  for (int e = 0; e < n; ++e)
    for (int c = 0; c < 3; ++c) dR[(1 + c) * m + e] = dh[3 * e + c];
  for (int e = 0; e < m; ++e) dsw[e] = e < n && m_.smooth ? ws_.dw.data()[f0 + e] : T(0);
  if (m_.direct_dist) {
    for (int e = 0; e < n; ++e)
      for (int c = 0; c < 3; ++c) {
        const T along = r[e] > T(0) ? d[c * m + e] / r[e] : T(0);
        g[c * m + e] = (dR[(1 + c) * m + e] + dR[e] * along) * m_.inv_rcut;
      }
    for (int e = 0; e < 4 * m; ++e) dR[e] = T(0);
  }
  repformer_rows_backward(i, {n, m, d, r, dR, dsw, nullptr}, g, arena);
  for (int c = 0; c < 3; ++c)
    for (int e = 0; e < n; ++e) gamma[c * lanes + e] += g[c * m + e];
  arena.release(mark);
}

/// dD (count, nd) = the gradient of [D, Q] of the centres i0..i1.
template <class T>
void Entry<T>::entry_backward(int i0, int i1, T* dD, T* dy) const {
  const int count = i1 - i0;
  const long size = static_cast<long>(count) * m_.n1, row0 = static_cast<long>(i0) * m_.n1;
  k_.activate_backward(size, dy, ws_.dg1.data() + row0, ws_.dphi_entry.data() + row0);
  if (m_.shape_identity)
    for (long c = 0; c < size; ++c) dD[c] = dy[c];
  else
    dense(count, dD, dy, m_.n1, m_.shape_t, nullptr, false);
}

template <class T>
void Entry<T>::backward(int t, int i0, int i1, double* gamma_out, bool atom_virial, Arena& arena) const {
  const Arena::Mark tile_mark = arena.mark();
  const Edges& edges = *frame_->edges;
  T* dD = arena.take<T>(static_cast<long>(i1 - i0) * m_.nd);
  entry_backward(i0, i1, dD, arena.take<T>(static_cast<long>(i1 - i0) * m_.n1));
  for (int i = i0; i < i1; ++i) {
    const Arena::Mark mark = arena.mark();
    const Lanes<T> far = repinit_lanes(m_, k_, *frame_, i, arena);
    const int n = far.n, m = far.m, ti = type(i);
    T* dR = arena.take<T>(4L * m);
    T* dsw = arena.take<T>(m);
    T* gamma = arena.take<T>(3L * m);
    const T* row = dD + static_cast<long>(i - i0) * m_.nd;
    const auto clear = [&](int lanes) {
      for (int e = 0; e < 4 * lanes; ++e) dR[e] = T(0);
      for (int e = 0; e < lanes; ++e) dsw[e] = T(0);
    };
    for (int e = 0; e < 3 * m; ++e) gamma[e] = T(0);
    clear(m);
    k_.repinit_backward(m_.repinit, n, m, dR, dsw, nullptr, row, nullptr, far.R, far.sw, far.index, repinit_pad(i), arena);
    k_.env_mat_backward(m, gamma, dR, dsw, far.d, far.r, m_.stats_repinit.cut, m_.stats_repinit.inv_std + 4L * ti);
    if (m_.use_three) {
      const Lanes<T> near = three_body_lanes(i, arena);
      T* g = arena.take<T>(3L * near.m);
      for (int e = 0; e < 3 * near.m; ++e) g[e] = T(0);
      clear(near.m);
      k_.three_body_backward(m_.three, near.n, near.m, dR + near.m, dsw, nullptr, row + m_.nd_repinit, near.R + near.m, near.sw, near.index,
                             three_body_pad(i), arena);
      k_.env_mat_backward(near.m, g, dR, dsw, near.d, near.r, m_.stats_three.cut, m_.stats_three.inv_std + 4L * ti);
      for (int c = 0; c < 3; ++c)
        for (int e = 0; e < near.n; ++e) gamma[c * m + e] += g[c * near.m + e];
    }
    backward_repformer_edges(i, arena, m, gamma);
    const std::size_t e0 = static_cast<std::size_t>(edges.start[static_cast<std::size_t>(i)]);
    // Of dual numbers the tangents: how the forces change along the direction.
    R* plain = nullptr;
    if constexpr (is_dual<T>) {
      plain = arena.take<R>(3L * m);
      for (int e = 0; e < 3 * m; ++e) plain[e] = gamma[e].d;
    } else {
      plain = gamma;
    }
    if (gamma_out != nullptr) {
      for (int e = 0; e < n; ++e)
        for (int c = 0; c < 3; ++c)
          gamma_out[3 * (e0 + static_cast<std::size_t>(e)) + static_cast<std::size_t>(c)] = static_cast<double>(plain[c * m + e]);
    } else {
      const std::size_t s = static_cast<std::size_t>(t);
      m_.kernels.assemble(n, m, ws_.force[s].data(), i - ws_.partition.range(t).begin, ws_.partition.local() + e0, ws_.virial[s].data(),
                          atom_virial ? ws_.atom_virial[s].data() : nullptr, plain, edges.d.data() + 3 * e0);
    }
    arena.release(mark);
  }
  arena.release(tile_mark);
}

template <class T>
void Entry<T>::gradient(int t, int i0, int i1, Arena& arena) const {
  const Arena::Mark tile_mark = arena.mark();
  const int count = i1 - i0;
  Gradients<R>& g = *gradients(t);
  T* dD = arena.take<T>(static_cast<long>(count) * m_.nd);
  T* dy = arena.take<T>(static_cast<long>(count) * m_.n1);
  entry_backward(i0, i1, dD, dy);
  if (!m_.shape_identity) dense_gradient(count, m_.shape, g.shape, nullptr, ws_.D.data() + static_cast<long>(i0) * m_.nd, m_.nd, dy);
  const int ngp = padded<R>(m_.repinit.ng), pad_type = frame_->pad_type < 0 ? 0 : frame_->pad_type;
  for (int i = i0; i < i1; ++i) {
    const Arena::Mark mark = arena.mark();
    const T* row = dD + static_cast<long>(i - i0) * m_.nd;
    if (g.tebd_term != nullptr)
      k_.bias_gradient(m_.n1, 1, g.tebd_term + static_cast<long>(type(i)) * m_.n1, dy + static_cast<long>(i - i0) * m_.n1, m_.n1);
    RepinitGradient<R> repinit = g.repinit;
    if (g.pad_G != nullptr) repinit.pad_G = g.pad_G + (static_cast<long>(pad_type) * m_.ntypes + type(i)) * ngp;
    const Lanes<T> far = repinit_lanes(m_, k_, *frame_, i, arena);
    k_.repinit_backward(m_.repinit, far.n, far.m, nullptr, nullptr, &repinit, row, nullptr, far.R, far.sw, far.index, repinit_pad(i),
                        arena);
    if (m_.use_three) {
      const Lanes<T> near = three_body_lanes(i, arena);
      k_.three_body_backward(m_.three, near.n, near.m, nullptr, nullptr, &g.three, row + m_.nd_repinit, near.R + near.m, near.sw,
                             near.index, three_body_pad(i), arena);
    }
    const std::int64_t f0 = ws_.start_repformer.data()[i];
    k_.g2_embed_backward(n_repformer(i), m_.n2, nullptr, g.g2_w, g.g2_b, ws_.pairs.gradient(f0), ws_.x.data() + f0, m_.g2_w, m_.g2_b,
                         m_.act, arena);
    arena.release(mark);
  }
  arena.release(tile_mark);
}

template class Entry<double>;
template class Entry<float>;
template class Entry<Dual<double>>;
template class Entry<Dual<float>>;

}  // namespace dpa2
