// Energies of a tile of atoms, and their gradients with respect to g1 (specification, sections 9.1 and 12.2).
#include "model/evaluate.hpp"

namespace dpa2 {

/// Energies of the atoms i0..i1, and with `gradient` dE_i/dg1_i: an atom's energy depends on no other atom's g1.
template <class T>
void Evaluator<T>::forward_fitting(int i0, int i1, Arena& arena, bool gradient) {
  const Arena::Mark mark = arena.mark();
  const int count = i1 - i0, width = m_.fitting.in;
  const long size = static_cast<long>(count) * width;
  T* x = arena.take<T>(size);
  T* dx = gradient ? arena.take<T>(size) : nullptr;
  T* e = arena.take<T>(count);
  T* e0 = arena.take<T>(count);
  const T* g1 = ws_.g1.back().data();
  for (int i = i0; i < i1; ++i) {
    T* row = x + static_cast<long>(i - i0) * width;
    int c = 0;
    for (int k = 0; k < m_.n1_real; ++k) row[c++] = g1[static_cast<long>(i) * m_.n1 + k];
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
    if (!gradient) continue;
    T* out = ws_.dE_dg1.data() + static_cast<long>(i) * m_.n1;
    for (int c = 0; c < m_.n1; ++c) out[c] = counts && c < m_.n1_real ? dx[static_cast<long>(i - i0) * width + c] : T(0);
  }
  arena.release(mark);
}

template void Evaluator<double>::forward_fitting(int, int, Arena&, bool);
template void Evaluator<float>::forward_fitting(int, int, Arena&, bool);

}  // namespace dpa2
