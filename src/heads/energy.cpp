#include "heads/energy.hpp"

namespace dpa2 {

std::vector<OutputSpec> energy_outputs() {
  return {
      {"energy", "eV", {1}, false, Reduction::sum, "atom_energy", false},   {"atom_energy", "eV", {1}, true, Reduction::none, "", false},
      {"force", "eV/angstrom", {3}, true, Reduction::none, "energy", true}, {"virial", "eV", {9}, false, Reduction::none, "energy", false},
      {"atom_virial", "eV", {9}, true, Reduction::none, "energy", true},
  };
}

/// Energies of the atoms i0..i1 with the features g1 (i1 - i0, n1), and dg1 (i1 - i0, n1) = dE_i/dg1_i unless null: an atom's
/// energy depends on no other atom's g1.
template <class T>
void EnergyHead<T>::fitting(const Frame& frame, int i0, int i1, const T* g1, double* energy, T* dg1, Arena& arena) const {
  const auto type = [&](int i) { return frame.types[i] < 0 ? 0 : frame.types[i]; };
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
    const double* fparam = frame.fparam != nullptr ? frame.fparam : m_.default_fparam.data();
    for (int k = 0; k < m_.nfparam; ++k)
      row[c++] = static_cast<T>((fparam[k] - m_.fparam_avg[static_cast<std::size_t>(k)]) * m_.fparam_inv_std[static_cast<std::size_t>(k)]);
    if (m_.aparam_in_net)
      for (int k = 0; k < m_.naparam; ++k)
        row[c++] = static_cast<T>((frame.aparam[static_cast<long>(i) * m_.naparam + k] - m_.aparam_avg[static_cast<std::size_t>(k)]) *
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
    const int t = frame.types[i];
    const bool counts = t >= 0 && m_.energy_excluded[static_cast<std::size_t>(t)] == 0;
    energy[i] =
        counts ? static_cast<double>(e[i - i0]) - static_cast<double>(e0[i - i0]) + m_.energy_bias[static_cast<std::size_t>(t)] : 0.0;
    if (dg1 == nullptr) continue;
    T* out = dg1 + static_cast<long>(i - i0) * m_.n1;
    for (int c = 0; c < m_.n1; ++c) out[c] = counts && c < m_.n1_real ? dx[static_cast<long>(i - i0) * width + c] : T(0);
  }
  arena.release(mark);
}

template <class T>
void EnergyHead<T>::forward(const Frame& frame, int i0, int i1, const Rows<const T>& rows, double* values, Arena& arena) const {
  fitting(frame, i0, i1, rows.g1, values, nullptr, arena);
}

template <class T>
void EnergyHead<T>::backward(const Frame& frame, int i0, int i1, const Rows<const T>& rows, const double* seed, double* values,
                             const Rows<T>& gradient, Arena& arena) const {
  fitting(frame, i0, i1, rows.g1, values, gradient.g1, arena);
  if (seed == nullptr) return;
  const long n1 = m_.n1, size = (i1 - i0) * n1;
  for (long c = 0; c < size; ++c) gradient.g1[c] *= static_cast<T>(seed[i0 + c / n1]);
}

template class EnergyHead<double>;
template class EnergyHead<float>;

}  // namespace dpa2
