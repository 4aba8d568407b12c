// Energies of a tile of atoms, and their gradients with respect to g1 (specification, sections 9.1 and 12.2).
#include "model/evaluate.hpp"

namespace dpa2 {

/// Energies of the atoms i0..i1 with the features g1 (i1 - i0, n1), and dg1 (i1 - i0, n1) = dE_i/dg1_i unless null: an atom's
/// energy depends on no other atom's g1.
template <class T>
void Evaluator<T>::fitting(int i0, int i1, const T* g1, T* dg1, Arena& arena) {
  const Arena::Mark mark = arena.mark();
  const int count = i1 - i0, width = m_.fitting.in;
  const long size = static_cast<long>(count) * width;
  T* x = arena.take<T>(size);
  T* dx = dg1 != nullptr ? arena.take<T>(size) : nullptr;
  T* e = arena.take<T>(count);
  T* e0 = arena.take<T>(count);
  for (int i = i0; i < i1; ++i) {
    T* row = x + static_cast<long>(i - i0) * width;
    int c = 0;
    for (int k = 0; k < m_.n1_real; ++k) row[c++] = g1[static_cast<long>(i - i0) * m_.n1 + k];
    if (m_.concat_tebd)
      for (int k = 0; k < m_.tebd_dim; ++k) row[c++] = m_.tebd[static_cast<long>(type(i)) * m_.tebd_dim + k];
    const double* fparam = frame_->fparam != nullptr ? frame_->fparam : m_.default_fparam.data();
    for (int k = 0; k < m_.nfparam; ++k)
      row[c++] = static_cast<T>((fparam[k] - m_.fparam_avg[static_cast<std::size_t>(k)]) * m_.fparam_inv_std[static_cast<std::size_t>(k)]);
    if (m_.aparam_in_net)
      for (int k = 0; k < m_.naparam; ++k)
        row[c++] = static_cast<T>((frame_->aparam[static_cast<long>(i) * m_.naparam + k] - m_.aparam_avg[static_cast<std::size_t>(k)]) *
                                  m_.aparam_inv_std[static_cast<std::size_t>(k)]);
    for (int k = 0; k < m_.ncase; ++k) row[c++] = static_cast<T>(m_.case_embd[static_cast<std::size_t>(k)]);
    while (c < width) row[c++] = T(0);
  }
  k_.fitting(m_.fitting, count, e, dx, x, arena);
  for (int i = 0; i < count; ++i) e0[i] = T(0);
  if (m_.vacuum) {
    for (int i = 0; i < count; ++i)
      for (int c = 0; c < m_.descriptor_dim; ++c) x[static_cast<long>(i) * width + c] = T(0);
    k_.fitting(m_.fitting, count, e0, nullptr, x, arena);
  }
  for (int i = i0; i < i1; ++i) {
    const int t = frame_->types[i];
    const bool counts = t >= 0 && m_.energy_excluded[static_cast<std::size_t>(t)] == 0;
    ws_.atom_energy.data()[i] = counts ? static_cast<double>(e[i - i0]) - static_cast<double>(e0[i - i0]) + m_.energy_bias[static_cast<std::size_t>(t)] : 0.0;
    if (dg1 == nullptr) continue;
    T* out = dg1 + static_cast<long>(i - i0) * m_.n1;
    for (int c = 0; c < m_.n1; ++c) out[c] = counts && c < m_.n1_real ? dx[static_cast<long>(i - i0) * width + c] : T(0);
  }
  arena.release(mark);
}

/// The last layer and the fitting of a tile, and back through the layer: nothing of a tile outlives it but what `keep` keeps.
/// seed (nlocal): weights of the energies, null for ones.
template <class T>
void Evaluator<T>::last_layer(int t, int i0, int i1, const double* seed, Arena& arena) {
  const Arena::Mark mark = arena.mark();
  const int layer = static_cast<int>(m_.layers.size()) - 1, n1 = m_.n1;
  const long size = static_cast<long>(i1 - i0) * n1;
  Tile tile;
  tile.i0 = i0;
  tile.i1 = i1;
  tile.g1 = arena.take<T>(size);
  tile.dphi_lin = arena.take<T>(size);
  tile.dphi_self = arena.take<T>(size);
  T* dnext = arena.take<T>(size);
  forward_layer(layer, tile, arena);
  fitting(i0, i1, tile.g1, dnext, arena);
  if (seed != nullptr)
    for (long c = 0; c < size; ++c) dnext[c] *= static_cast<T>(seed[i0 + c / n1]);
  backward_layer(layer, t, tile, dnext, arena);
  arena.release(mark);
}

#define DPA2_INSTANTIATE_FOR(T)                                              \
  template void Evaluator<T>::fitting(int, int, const T*, T*, Arena&); \
  template void Evaluator<T>::last_layer(int, int, int, const double*, Arena&);
DPA2_INSTANTIATE_FOR(double)
DPA2_INSTANTIATE_FOR(float)

}  // namespace dpa2
