#include "model/evaluate.hpp"

#include <algorithm>

namespace dpa2 {

template <class T>
void Evaluator<T>::dense(int n, T* y, const T* x, long ldx, const Packed<T>& w, const T* bias, bool accumulate) const {
  constexpr int panel = padded<T>(1);
  k_.linear(n, w.n, w.k, y, w.n, x, ldx, 1, w.data, panel, static_cast<long>(w.k) * panel, bias, accumulate);
}

/// f(thread, first, last, arena) for every tile of centres.
template <class T>
template <class F>
void Evaluator<T>::for_tiles(F f) {
  parallel(ws_.partition.threads(), [&](int t) {
    const ThreadRange& range = ws_.partition.range(t);
    Arena& arena = *ws_.arenas[static_cast<std::size_t>(t)];
    for (int i0 = range.begin; i0 < range.end; i0 += tile) f(t, i0, std::min(i0 + tile, range.end), arena);
  });
}

template <class T>
void Evaluator<T>::prepare_step(const Frame& frame, int threads) {
  frame_ = &frame;
  const Edges& edges = *frame.edges;
  // A range per thread needs centres: more threads than tiles would only widen the halos.
  threads = std::max(1, std::min(threads, edges.nlocal));
  while (static_cast<int>(ws_.arenas.size()) < threads) ws_.arenas.push_back(std::make_unique<Arena>());
  for (auto& arena : ws_.arenas) arena->reset();
  ws_.partition.build(edges, threads);

  const std::size_t nlocal = static_cast<std::size_t>(edges.nlocal), nall = static_cast<std::size_t>(edges.nall);
  const std::size_t nlayers = m_.layers.size(), n1 = static_cast<std::size_t>(m_.n1), n2 = static_cast<std::size_t>(m_.n2);
  std::int64_t* start = ws_.start2.resize(nlocal + 1);
  start[0] = 0;
  for (std::size_t i = 0; i < nlocal; ++i) start[i + 1] = start[i] + edges.n_rep[i];
  const std::size_t ne = static_cast<std::size_t>(start[nlocal]);
  ws_.g1.resize(nlayers + 1);
  ws_.g2.resize(nlayers);
  ws_.h2.resize(m_.update_h2 ? nlayers : 1);
  ws_.dphi_self.resize(nlayers);
  ws_.dphi_lin.resize(nlayers);
  for (auto& b : ws_.g1) b.resize(nall * n1);
  for (auto& b : ws_.g2) b.resize(ne * n2);
  for (auto& b : ws_.h2) b.resize(ne * 3);
  for (auto& b : ws_.dphi_self) b.resize(m_.has_self ? nlocal * n1 : 0);
  for (auto& b : ws_.dphi_lin) b.resize(nlocal * n1);
  ws_.dphi_entry.resize(nlocal * n1);
  ws_.w.resize(ne);
  ws_.x.resize(ne);
}

template <class T>
void Evaluator<T>::forward(Exchange* exchange) {
  for_tiles([&](int, int i0, int i1, Arena& arena) { forward_entry(i0, i1, arena); });
  for (std::size_t l = 0; l < m_.layers.size(); ++l) {
    if (exchange != nullptr) exchange->forward(ws_.g1[l].data(), m_.n1);
    for_tiles([&](int, int i0, int i1, Arena& arena) { forward_layer(static_cast<int>(l), i0, i1, arena); });
  }
}

/// Gradient of sum_i seed_i E_i (seed null: of the energy): forces and virial into the threads' buffers and `out`, or the
/// gradients of the edge vectors into gamma_out (nedge, 3).
template <class T>
void Evaluator<T>::backward(Exchange* exchange, const double* seed, double* gamma_out, Outputs& out, bool atom_virial) {
  const Edges& edges = *frame_->edges;
  const int threads = ws_.partition.threads();
  const std::size_t count = static_cast<std::size_t>(threads), nt = count;
  const std::size_t n1 = static_cast<std::size_t>(m_.n1), ne = static_cast<std::size_t>(ws_.start2.data()[edges.nlocal]);
  ws_.dg1.resize(static_cast<std::size_t>(edges.nall) * n1);
  ws_.dg2.resize(ne * static_cast<std::size_t>(m_.n2));
  ws_.dh2.resize(ne * 3);
  ws_.dw.resize(ne);
  for (auto* list : {&ws_.force, &ws_.atom_virial, &ws_.virial}) list->resize(std::max(list->size(), nt));
  ws_.acc.resize(std::max(ws_.acc.size(), nt));
  for (int i = 0; i < edges.nlocal; ++i) {
    const T s = seed != nullptr ? static_cast<T>(seed[i]) : T(1);
    for (std::size_t c = 0; c < n1; ++c) ws_.dg1.data()[static_cast<std::size_t>(i) * n1 + c] = s * ws_.dE_dg1.data()[static_cast<std::size_t>(i) * n1 + c];
  }
  for (int l = static_cast<int>(m_.layers.size()) - 1; l >= 0; --l) {
    parallel(threads, [&](int t) {
      const std::size_t s = static_cast<std::size_t>(t);
      ws_.acc[s].zeros(static_cast<std::size_t>(ws_.partition.range(t).rows()) * n1);
    });
    for_tiles([&](int t, int i0, int i1, Arena& arena) { backward_layer(l, t, i0, i1, arena); });
    ws_.partition.merge(ws_.acc, m_.n1, ws_.dg1.data());
    if (exchange != nullptr) exchange->reverse(ws_.dg1.data(), m_.n1);
  }
  if (gamma_out == nullptr) {
    for (std::size_t s = 0; s < nt; ++s) {
      const std::size_t rows = static_cast<std::size_t>(ws_.partition.range(static_cast<int>(s)).rows());
      ws_.force[s].zeros(3 * rows);
      ws_.virial[s].zeros(9);
      if (atom_virial)
        ws_.atom_virial[s].zeros(9 * rows);
      else
        ws_.atom_virial[s] = Buffer<double>();
    }
  }
  for_tiles([&](int t, int i0, int i1, Arena& arena) { backward_entry(t, i0, i1, arena, gamma_out); });
  if (gamma_out != nullptr) return;
  ws_.partition.merge(ws_.force, 3, out.force);
  if (atom_virial) ws_.partition.merge(ws_.atom_virial, 9, out.atom_virial);
  for (int k = 0; k < 9; ++k) {
    out.virial[k] = 0;
    for (std::size_t s = 0; s < nt; ++s) out.virial[k] += ws_.virial[s].data()[k];
  }
}

/// deepmd-kit's atomic virial (specification, 9.3): the share of dE_a/dX_I goes to the displaced atom, with the arm from
/// the displaced position to the wrapped position of a. Three more backward passes, seeded with the wrapped coordinates.
template <class T>
void Evaluator<T>::deepmd_virial(Exchange* exchange, Outputs& out) {
  const Edges& edges = *frame_->edges;
  const std::size_t ne = static_cast<std::size_t>(edges.nedge()), n = static_cast<std::size_t>(edges.nlocal);
  const double* x = frame_->wrapped;
  std::fill_n(out.atom_virial, 9 * static_cast<std::size_t>(edges.nall), 0.0);
  if (ne == 0 && exchange == nullptr) return;  // with others, also a rank without edges takes part in every exchange
  std::vector<double> seed(n);
  Outputs unused;
  for (std::size_t l = 0; l < 4; ++l) {
    for (std::size_t i = 0; i < n; ++i) seed[i] = l < 3 ? x[3 * i + l] : 1.0;
    backward(exchange, seed.data(), ws_.gamma[l].resize(3 * ne + 1), unused, false);
  }
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t e = static_cast<std::size_t>(edges.start[i]); e < static_cast<std::size_t>(edges.start[i + 1]); ++e) {
      const std::size_t j = static_cast<std::size_t>(edges.j[e]);
      for (std::size_t k = 0; k < 3; ++k)
        for (std::size_t l = 0; l < 3; ++l) {
          const double seeded = ws_.gamma[l].data()[3 * e + k], plain = ws_.gamma[3].data()[3 * e + k];
          out.atom_virial[9 * j + 3 * k + l] += seeded - (x[3 * i + l] + edges.d[3 * e + l]) * plain;
          out.atom_virial[9 * i + 3 * k + l] -= seeded - x[3 * i + l] * plain;
        }
    }
}

template <class T>
void Evaluator<T>::descriptor(const Frame& frame, int threads, Exchange* exchange, Outputs& out) {
  prepare_step(frame, threads);
  forward(exchange);
  for_tiles([&](int, int i0, int i1, Arena& arena) {
    for (int i = i0; i < i1; ++i) {
      if (out.descriptor != nullptr) {
        double* row = out.descriptor + static_cast<std::ptrdiff_t>(i) * m_.descriptor_dim;
        for (int c = 0; c < m_.n1_real; ++c) row[c] = static_cast<double>(ws_.g1.back().data()[static_cast<std::ptrdiff_t>(i) * m_.n1 + c]);
        if (m_.concat_tebd)
          for (int c = 0; c < m_.tebd_dim; ++c) row[m_.n1_real + c] = static_cast<double>(m_.tebd[static_cast<std::ptrdiff_t>(type(i)) * m_.tebd_dim + c]);
      }
      if (out.rot_mat != nullptr) rotation(i, arena, out.rot_mat + static_cast<std::ptrdiff_t>(i) * m_.n2_real * 3);
    }
  });
}

template <class T>
void Evaluator<T>::evaluate(const Frame& frame, int threads, Exchange* exchange, AtomVirial atom_virial, Outputs& out) {
  prepare_step(frame, threads);
  const Edges& edges = *frame.edges;
  const std::size_t nlocal = static_cast<std::size_t>(edges.nlocal);
  ws_.dE_dg1.resize(nlocal * static_cast<std::size_t>(m_.n1));
  ws_.atom_energy.resize(nlocal);
  forward(exchange);
  const bool gradient = out.force != nullptr;
  for_tiles([&](int, int i0, int i1, Arena& arena) { forward_fitting(i0, i1, arena, gradient); });
  out.energy = 0;
  for (std::size_t i = 0; i < nlocal; ++i) out.energy += ws_.atom_energy.data()[i];
  if (out.atom_energy != nullptr) std::copy_n(ws_.atom_energy.data(), nlocal, out.atom_energy);
  if (!gradient) return;
  backward(exchange, nullptr, nullptr, out, atom_virial == AtomVirial::edge);
  if (atom_virial == AtomVirial::deepmd) deepmd_virial(exchange, out);
}

template <class T>
std::size_t Evaluator<T>::bytes() const {
  std::size_t bytes = 0;
  for (const auto& arena : ws_.arenas) bytes += arena->capacity();
  for (const auto* list : {&ws_.g1, &ws_.dphi_self, &ws_.dphi_lin, &ws_.g2, &ws_.h2, &ws_.acc})
    for (const auto& b : *list) bytes += b.bytes();
  for (const auto* list : {&ws_.force, &ws_.atom_virial, &ws_.virial})
    for (const auto& b : *list) bytes += b.bytes();
  for (const auto* b : {&ws_.dphi_entry, &ws_.w, &ws_.x, &ws_.dE_dg1, &ws_.dg1, &ws_.dg2, &ws_.dh2, &ws_.dw}) bytes += b->bytes();
  for (const auto& b : ws_.gamma) bytes += b.bytes();
  return bytes + ws_.atom_energy.bytes() + ws_.start2.bytes();
}

template class Evaluator<double>;
template class Evaluator<float>;

}  // namespace dpa2
