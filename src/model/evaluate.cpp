#include "model/evaluate.hpp"

#include <algorithm>
#include <utility>

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
    for (int i0 = range.begin; i0 < range.end; i0 += tile_size) f(t, i0, std::min(i0 + tile_size, range.end), arena);
  });
}

template <class T>
Extent Evaluator<T>::extent(Count nlocal, Count nedge, Count nedge2, bool gradient, AtomVirial atom_virial) const {
  Extent e;
  e.nlocal = e.nall = nlocal;
  e.nedge = nedge;
  e.nedge2 = nedge2;
  e.nlayers = static_cast<int>(m_.layers.size());
  e.n1 = m_.n1;
  e.n2 = m_.n2;
  e.update_h2 = m_.has().update_h2;
  e.gradient = gradient;
  e.pair_att = m_.has().pair_attention;
  e.self = m_.has().self;
  e.generous = gradient && nedge2 * (e.nlayers - 1) * m_.n2 * (e.pair_att ? 2 : 1) * static_cast<std::int64_t>(sizeof(T)) <= generous_limit;
  e.atom_virial = atom_virial == AtomVirial::edge;
  e.deepmd_virial = gradient && atom_virial == AtomVirial::deepmd;
  return e;
}

template <class T>
void Evaluator<T>::prepare_step(const Frame& frame, int threads, bool gradient, AtomVirial atom_virial) {
  frame_ = &frame;
  const Edges& edges = *frame.edges;
  // A range per thread needs centres: more threads than tiles would only widen the halos.
  threads = std::max(1, std::min(threads, edges.nlocal));
  while (static_cast<int>(ws_.arenas.size()) < threads) ws_.arenas.push_back(std::make_unique<Arena>());
  for (auto& arena : ws_.arenas) arena->reset();
  ws_.partition.build(edges, threads);

  const std::size_t nlocal = static_cast<std::size_t>(edges.nlocal);
  std::int64_t* start = ws_.start2.resize(nlocal + 1);
  start[0] = 0;
  for (std::size_t i = 0; i < nlocal; ++i) start[i + 1] = start[i] + edges.n_rep[i];
  std::vector<std::int64_t> rows = std::move(ws_.extent.rows);  // keeps its memory
  rows.clear();
  for (int t = 0; t < threads; ++t) rows.push_back(ws_.partition.range(t).rows());
  ws_.extent = extent(edges.nlocal, edges.nedge(), start[nlocal], gradient, atom_virial);
  ws_.extent.nall = edges.nall;
  ws_.extent.rows = std::move(rows);
  // Once memory is short it stays so for this workspace: what it holds itself would look free.
  ws_.extent.keep = keep_;
  ws_.extent.generous = ws_.extent.generous && generous_;
  if (gradient && !fits(ws_.growth(ws_.extent))) {
    generous_ = ws_.extent.generous = false;
    while (ws_.extent.keep < ws_.extent.nlayers && !fits(ws_.growth(ws_.extent))) ++ws_.extent.keep;
  }
  keep_ = ws_.extent.keep;
  require_memory(ws_.growth(ws_.extent), edges.nlocal);
  ws_.table(ws_.extent, [](auto& buffer, Count n) { buffer.resize(static_cast<std::size_t>(n.value())); });
}

template <class T>
void Evaluator<T>::require(std::int64_t natoms, bool gradient, AtomVirial atom_virial) {
  Extent least = extent(natoms, 0, 0, gradient, atom_virial);
  least.generous = false;
  require_memory(ws_.growth(least), natoms);
}

template <class T>
std::int64_t Evaluator<T>::memory_estimate(const MemoryQuestion& q) const {
  Extent e = extent(q.natoms, q.nedge, q.nedge2, q.gradient, q.atom_virial);
  const std::int64_t threads = std::max<std::int64_t>(1, std::min<std::int64_t>(q.threads, q.natoms));
  // A thread sums into its own atoms and their neighbours outside: all atoms, if they are in no spatial order.
  e.rows.assign(static_cast<std::size_t>(threads), threads == 1 ? q.natoms : std::min(q.natoms, (Count(q.natoms / threads) + q.nedge / threads).value()));
  Workspace<T> empty;
  const Count bytes = Count(empty.growth(e)) + partition_bytes(q) + neighbor_bytes(q) + result_bytes(q);
  // Scratch of a thread: the dense products of a tile, and the pair maps of one centre.
  const Count n1 = m_.n1, n2 = m_.n2, most = padded<T>(m_.nsel2);
  const Count dense = (Count(2) * m_.nd + n1 * (Count(12) + Count(3) * m_.nh1) + Count(2) * m_.fitting.in) * tile_size;
  const Count pairs = most * (n2 * 16 + (m_.has().pair_map() ? most * 16 : 0));
  return (bytes + (dense + pairs) * threads * static_cast<std::int64_t>(sizeof(T))).value();
}

template <class T>
typename Evaluator<T>::Tile Evaluator<T>::tile_of(int layer, int i0, int i1) {
  const std::size_t l = static_cast<std::size_t>(layer);
  const std::ptrdiff_t row0 = static_cast<std::ptrdiff_t>(i0) * m_.n1;
  return {i0, i1, ws_.g1[l + 1].data() + row0, ws_.extent.gradient ? ws_.dphi_lin[l].data() + row0 : nullptr,
          ws_.extent.generous && m_.has().self ? ws_.dphi_self[l].data() + row0 : nullptr};
}

/// Up to the last layer; where a backward follows, up to the one before.
template <class T>
void Evaluator<T>::forward(Exchange* exchange) {
  for_tiles([&](int, int i0, int i1, Arena& arena) { forward_entry(i0, i1, arena); });
  const int last = static_cast<int>(m_.layers.size()) - 1;
  current_ = true;
  for (int l = 0; l <= last; ++l) {
    if (exchange != nullptr) exchange->forward(ws_.g1[static_cast<std::size_t>(l)].data(), m_.n1);
    if (l == last && ws_.extent.gradient) break;
    for_tiles([&](int, int i0, int i1, Arena& arena) { forward_layer(l, tile_of(l, i0, i1), arena); });
  }
}

/// The last layer, the energies, and the gradient of sum_i seed_i E_i (seed null: of the energy): forces and virial into the
/// threads' buffers and `out`, or the gradients of the edge vectors into gamma_out (nedge, 3).
template <class T>
void Evaluator<T>::backward(Exchange* exchange, const double* seed, double* gamma_out, const Outputs& out, bool atom_virial) {
  const int threads = ws_.partition.threads();
  const std::size_t nt = static_cast<std::size_t>(threads);
  const std::size_t n1 = static_cast<std::size_t>(m_.n1);
  const int last = static_cast<int>(m_.layers.size()) - 1;
  for (int l = last; l >= 0; --l) {
    parallel(threads, [&](int t) {
      const std::size_t s = static_cast<std::size_t>(t);
      ws_.acc[s].zeros(static_cast<std::size_t>(ws_.partition.range(t).rows()) * n1);
    });
    for_tiles([&](int t, int i0, int i1, Arena& arena) {
      if (l == last)
        last_layer(t, i0, i1, seed, arena);
      else
        backward_layer(l, t, tile_of(l, i0, i1), ws_.dg1.data() + static_cast<std::ptrdiff_t>(i0) * m_.n1, arena);
    });
    current_ = false;
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
  ws_.partition.merge(ws_.force, 3, out.array("force"));
  if (atom_virial) ws_.partition.merge(ws_.atom_virial, 9, out.array("atom_virial"));
  double* virial = out.array("virial");
  for (int k = 0; virial != nullptr && k < 9; ++k) {
    virial[k] = 0;
    for (std::size_t s = 0; s < nt; ++s) virial[k] += ws_.virial[s].data()[k];
  }
}

/// deepmd-kit's atomic virial (specification, 9.3): the share of dE_a/dX_I goes to the displaced atom, with the arm from
/// the displaced position to the wrapped position of a. Three more backward passes, seeded with the wrapped coordinates.
template <class T>
void Evaluator<T>::deepmd_virial(Exchange* exchange, const Outputs& out) {
  const Edges& edges = *frame_->edges;
  const std::size_t ne = static_cast<std::size_t>(edges.nedge()), n = static_cast<std::size_t>(edges.nlocal);
  const double* x = frame_->wrapped;
  double* virial = out.array("atom_virial");
  std::fill_n(virial, 9 * static_cast<std::size_t>(edges.nall), 0.0);
  if (ne == 0 && exchange == nullptr) return;  // with others, also a rank without edges takes part in every exchange
  double* seed = ws_.seed.data();
  Outputs unused;
  for (std::size_t l = 0; l < 4; ++l) {
    for (std::size_t i = 0; i < n; ++i) seed[i] = l < 3 ? x[3 * i + l] : 1.0;
    backward(exchange, seed, ws_.gamma[l].data(), unused, false);
  }
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t e = static_cast<std::size_t>(edges.start[i]); e < static_cast<std::size_t>(edges.start[i + 1]); ++e) {
      const std::size_t j = static_cast<std::size_t>(edges.j[e]);
      for (std::size_t k = 0; k < 3; ++k)
        for (std::size_t l = 0; l < 3; ++l) {
          const double seeded = ws_.gamma[l].data()[3 * e + k], plain = ws_.gamma[3].data()[3 * e + k];
          virial[9 * j + 3 * k + l] += seeded - (x[3 * i + l] + edges.d[3 * e + l]) * plain;
          virial[9 * i + 3 * k + l] -= seeded - x[3 * i + l] * plain;
        }
    }
}

template <class T>
void Evaluator<T>::descriptor(const Frame& frame, int threads, Exchange* exchange, const Outputs& out) {
  double *const descriptor = out.array("descriptor"), *const rot_mat = out.array("rot_mat");
  prepare_step(frame, threads, false, AtomVirial::none);
  forward(exchange);
  for_tiles([&](int, int i0, int i1, Arena& arena) {
    for (int i = i0; i < i1; ++i) {
      if (descriptor != nullptr) {
        double* row = descriptor + static_cast<std::ptrdiff_t>(i) * m_.descriptor_dim;
        for (int c = 0; c < m_.n1_real; ++c) row[c] = static_cast<double>(ws_.g1.back().data()[static_cast<std::ptrdiff_t>(i) * m_.n1 + c]);
        if (m_.concat_tebd)
          for (int c = 0; c < m_.tebd_dim; ++c) row[m_.n1_real + c] = static_cast<double>(m_.tebd[static_cast<std::ptrdiff_t>(type(i)) * m_.tebd_dim + c]);
      }
      if (rot_mat != nullptr) rotation(i, arena, rot_mat + static_cast<std::ptrdiff_t>(i) * m_.n2_real * 3);
    }
  });
}

template <class T>
void Evaluator<T>::evaluate(const Frame& frame, int threads, Exchange* exchange, AtomVirial atom_virial, const Outputs& out) {
  const bool gradient = out.array("force") != nullptr;
  prepare_step(frame, threads, gradient, atom_virial);
  const std::size_t nlocal = static_cast<std::size_t>(frame.edges->nlocal);
  forward(exchange);
  if (gradient)
    backward(exchange, nullptr, nullptr, out, atom_virial == AtomVirial::edge);
  else
    for_tiles([&](int, int i0, int i1, Arena& arena) {
      fitting(i0, i1, ws_.g1.back().data() + static_cast<std::ptrdiff_t>(i0) * m_.n1, nullptr, arena);
    });
  const double* energies = ws_.atom_energy.data();
  if (double* energy = out.array("energy")) {
    *energy = 0;
    for (std::size_t i = 0; i < nlocal; ++i) *energy += energies[i];
  }
  if (double* atom_energy = out.array("atom_energy")) std::copy_n(energies, nlocal, atom_energy);
  if (gradient && atom_virial == AtomVirial::deepmd) deepmd_virial(exchange, out);
}

template <class T>
std::size_t Evaluator<T>::bytes() {
  std::size_t bytes = 0;
  for (const auto& arena : ws_.arenas) bytes += arena->capacity();
  ws_.table(ws_.extent, [&](auto& buffer, Count) { bytes += buffer.bytes(); });
  return bytes;
}

template class Evaluator<double>;
template class Evaluator<float>;

}  // namespace dpa2
