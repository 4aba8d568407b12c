#include "graph/entry.hpp"

namespace dpa2 {

/// d (3, lanes) and r (lanes) of the first n edges of centre i; the other lanes are at a harmless place.
template <class T>
void Entry<T>::load_lanes(int i, int n, int lanes, T* d, T* r) const {
  const Edges& edges = *frame_->edges;
  const std::size_t e0 = static_cast<std::size_t>(edges.start[static_cast<std::size_t>(i)]);
  for (int e = 0; e < n; ++e) {
    const std::size_t at = e0 + static_cast<std::size_t>(e);
    for (int x = 0; x < 3; ++x) d[x * lanes + e] = static_cast<T>(edges.d[3 * at + static_cast<std::size_t>(x)]);
    r[e] = static_cast<T>(edges.r[at]);
  }
  for (int e = n; e < lanes; ++e) {
    for (int x = 0; x < 3; ++x) d[x * lanes + e] = T(0);
    r[e] = T(1);
  }
}

/// Rows of repinit's type tables for the edges of centre i.
template <class T>
int Entry<T>::combinations(int i, int n, int lanes, int* combination) const {
  const Edges& edges = *frame_->edges;
  const std::size_t e0 = static_cast<std::size_t>(edges.start[static_cast<std::size_t>(i)]);
  const int ti = type(i);
  for (int e = 0; e < n; ++e) {
    const int tj = type(edges.j[e0 + static_cast<std::size_t>(e)]);
    combination[e] = m_.one_side ? tj : tj * m_.ntypes + ti;
  }
  for (int e = n; e < lanes; ++e) combination[e] = 0;
  return ti;
}

template <class T>
RepinitPad<T> Entry<T>::repinit_pad(int i) const {
  RepinitPad<T> pad;
  if (!m_.has_pad_repinit) return pad;
  const int ti = type(i), t0 = frame_->pad_type < 0 ? 0 : frame_->pad_type;
  pad.weight = static_cast<T>(frame_->edges->pad_repinit[static_cast<std::size_t>(i)]) * m_.repinit.inv_nsel;
  pad.R = m_.pad_R + 4L * ti;
  pad.G = m_.pad_G + (static_cast<long>(t0) * m_.ntypes + ti) * m_.repinit.ng;
  return pad;
}

template <class T>
ThreeBodyPad<T> Entry<T>::three_body_pad(int i) const {
  ThreeBodyPad<T> pad;
  if (!m_.has_pad_three) return pad;
  pad.multiplicity = static_cast<T>(frame_->edges->pad_three[static_cast<std::size_t>(i)]);
  for (int x = 0; x < 3; ++x) pad.v[x] = m_.pad_v[3L * type(i) + x];
  pad.type = frame_->pad_type < 0 ? 0 : frame_->pad_type;
  return pad;
}

template <class T>
void Entry<T>::forward(int i0, int i1, Arena& arena) const {
  const Arena::Mark tile_mark = arena.mark();
  const Edges& edges = *frame_->edges;
  const int count = i1 - i0;
  T* D = arena.take<T>(static_cast<long>(count) * m_.nd);
  T* M = arena.take<T>(4L * padded<T>(m_.repinit.ng));
  for (long c = 0; c < static_cast<long>(count) * m_.nd; ++c) D[c] = T(0);
  for (int i = i0; i < i1; ++i) {
    const Arena::Mark mark = arena.mark();
    const int n = edges.count(i), m = padded<T>(n);
    T* d = arena.take<T>(3L * m);
    T* r = arena.take<T>(m);
    T* R = arena.take<T>(4L * m);
    T* sw = arena.take<T>(m);
    int* index = arena.take<int>(m);
    const int ti = combinations(i, n, m, index);
    T* row = D + static_cast<long>(i - i0) * m_.nd;
    load_lanes(i, n, m, d, r);
    k_.env_mat(n, m, R, sw, d, r, m_.stats_repinit.cut, m_.stats_repinit.mean + 4L * ti, m_.stats_repinit.inv_std + 4L * ti);
    k_.repinit(m_.repinit, n, m, row, M, R, sw, index, repinit_pad(i), arena);
    const std::size_t e0 = static_cast<std::size_t>(edges.start[static_cast<std::size_t>(i)]);
    if (m_.use_three) {
      const int n3 = edges.n_three[static_cast<std::size_t>(i)], m3 = padded<T>(n3);
      for (int e = 0; e < n3; ++e) index[e] = type(edges.j[e0 + static_cast<std::size_t>(e)]);
      load_lanes(i, n3, m3, d, r);
      k_.env_mat(n3, m3, R, sw, d, r, m_.stats_three.cut, m_.stats_three.mean + 4L * ti, m_.stats_three.inv_std + 4L * ti);
      k_.three_body(m_.three, n3, m3, row + m_.nd_repinit, R + m3, sw, index, three_body_pad(i), arena);
    }
    const int n2 = n_repformer(i), m2 = padded<T>(n2);
    const std::int64_t f0 = ws_.start_repformer.data()[i];
    T* x = ws_.x.data() + f0;
    T* w = ws_.w.data() + f0;
    T* h = ws_.h2_before(0) + 3 * f0;
    load_lanes(i, n2, m2, d, r);
    k_.env_mat(n2, m2, R, sw, d, r, m_.stats_repformer.cut, m_.stats_repformer.mean + 4L * ti, m_.stats_repformer.inv_std + 4L * ti);
    for (int e = 0; e < n2; ++e) {
      w[e] = m_.smooth ? sw[e] : T(1);
      x[e] = m_.direct_dist ? r[e] * m_.inv_rcut : R[e];
      for (int c = 0; c < 3; ++c) h[3 * e + c] = m_.direct_dist ? d[c * m2 + e] * m_.inv_rcut : R[(1 + c) * m2 + e];
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
  const int n = n_repformer(i), m = padded<T>(n), ti = type(i);
  const std::int64_t f0 = ws_.start_repformer.data()[i];
  T* d = arena.take<T>(3L * m);
  T* r = arena.take<T>(m);
  T* dR = arena.take<T>(4L * m);
  T* dsw = arena.take<T>(m);
  T* g = arena.take<T>(3L * m);
  load_lanes(i, n, m, d, r);
  for (int e = 0; e < 4 * m; ++e) dR[e] = T(0);
  for (int e = 0; e < 3 * m; ++e) g[e] = T(0);
  k_.g2_embed_backward(n, m_.n2, dR, ws_.pairs.gradient(f0), ws_.x.data() + f0, m_.g2_w, m_.g2_b, m_.act, arena);
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
  k_.env_mat_backward(m, g, dR, dsw, d, r, m_.stats_repformer.cut, m_.stats_repformer.inv_std + 4L * ti);
  for (int c = 0; c < 3; ++c)
    for (int e = 0; e < n; ++e) gamma[c * lanes + e] += g[c * m + e];
  arena.release(mark);
}

template <class T>
void Entry<T>::backward(int t, int i0, int i1, double* gamma_out, bool atom_virial, Arena& arena) const {
  const Arena::Mark tile_mark = arena.mark();
  const Edges& edges = *frame_->edges;
  const int count = i1 - i0;
  T* dD = arena.take<T>(static_cast<long>(count) * m_.nd);
  T* dy = arena.take<T>(static_cast<long>(count) * m_.n1);
  const long row0 = static_cast<long>(i0) * m_.n1;
  k_.activate_backward(static_cast<long>(count) * m_.n1, dy, ws_.dg1.data() + row0, ws_.dphi_entry.data() + row0);
  if (m_.shape_identity)
    for (long c = 0; c < static_cast<long>(count) * m_.n1; ++c) dD[c] = dy[c];
  else
    dense(count, dD, dy, m_.n1, m_.shape_t, nullptr, false);
  for (int i = i0; i < i1; ++i) {
    const Arena::Mark mark = arena.mark();
    const int n = edges.count(i), m = padded<T>(n);
    T* d = arena.take<T>(3L * m);
    T* r = arena.take<T>(m);
    T* R = arena.take<T>(4L * m);
    T* sw = arena.take<T>(m);
    T* dR = arena.take<T>(4L * m);
    T* dsw = arena.take<T>(m);
    T* gamma = arena.take<T>(3L * m);
    int* index = arena.take<int>(m);
    const int ti = combinations(i, n, m, index);
    const T* row = dD + static_cast<long>(i - i0) * m_.nd;
    const auto clear = [&](int lanes) {
      for (int e = 0; e < 4 * lanes; ++e) dR[e] = T(0);
      for (int e = 0; e < lanes; ++e) dsw[e] = T(0);
    };
    for (int e = 0; e < 3 * m; ++e) gamma[e] = T(0);
    clear(m);
    load_lanes(i, n, m, d, r);
    k_.env_mat(n, m, R, sw, d, r, m_.stats_repinit.cut, m_.stats_repinit.mean + 4L * ti, m_.stats_repinit.inv_std + 4L * ti);
    k_.repinit_backward(m_.repinit, n, m, dR, dsw, row, R, sw, index, repinit_pad(i), arena);
    k_.env_mat_backward(m, gamma, dR, dsw, d, r, m_.stats_repinit.cut, m_.stats_repinit.inv_std + 4L * ti);
    const std::size_t e0 = static_cast<std::size_t>(edges.start[static_cast<std::size_t>(i)]);
    if (m_.use_three) {
      const int n3 = edges.n_three[static_cast<std::size_t>(i)], m3 = padded<T>(n3);
      T* g = arena.take<T>(3L * m3);
      for (int e = 0; e < 3 * m3; ++e) g[e] = T(0);
      for (int e = 0; e < n3; ++e) index[e] = type(edges.j[e0 + static_cast<std::size_t>(e)]);
      clear(m3);
      load_lanes(i, n3, m3, d, r);
      k_.env_mat(n3, m3, R, sw, d, r, m_.stats_three.cut, m_.stats_three.mean + 4L * ti, m_.stats_three.inv_std + 4L * ti);
      k_.three_body_backward(m_.three, n3, m3, dR + m3, dsw, row + m_.nd_repinit, R + m3, sw, index, three_body_pad(i), arena);
      k_.env_mat_backward(m3, g, dR, dsw, d, r, m_.stats_three.cut, m_.stats_three.inv_std + 4L * ti);
      for (int c = 0; c < 3; ++c)
        for (int e = 0; e < n3; ++e) gamma[c * m + e] += g[c * m3 + e];
    }
    backward_repformer_edges(i, arena, m, gamma);
    if (gamma_out != nullptr) {
      for (int e = 0; e < n; ++e)
        for (int c = 0; c < 3; ++c)
          gamma_out[3 * (e0 + static_cast<std::size_t>(e)) + static_cast<std::size_t>(c)] = static_cast<double>(gamma[c * m + e]);
    } else {
      const std::size_t s = static_cast<std::size_t>(t);
      k_.assemble(n, m, ws_.force[s].data(), i - ws_.partition.range(t).begin, ws_.partition.local() + e0, ws_.virial[s].data(),
                  atom_virial ? ws_.atom_virial[s].data() : nullptr, gamma, edges.d.data() + 3 * e0);
    }
    arena.release(mark);
  }
  arena.release(tile_mark);
}

template class Entry<double>;
template class Entry<float>;

}  // namespace dpa2
