#include "cpu/assemble.hpp"

#include "cpu/simd.hpp"

namespace dpa2 {

template <class T, class Isa>
void Assemble<T, Isa>::centre(int n, int m, double* force, long own, const int* scatter, double* virial, double* atom_virial,
                              const T* gamma, const double* d) {
  double total[3] = {0, 0, 0}, w[9] = {0, 0, 0, 0, 0, 0, 0, 0, 0};
  for (int e = 0; e < n; ++e) {
    const double g[3] = {static_cast<double>(gamma[e]), static_cast<double>(gamma[m + e]), static_cast<double>(gamma[2 * m + e])};
    double* fj = force + 3L * scatter[e];
    double share[9];
    for (int k = 0; k < 3; ++k) {
      total[k] += g[k];
      fj[k] -= g[k];
      for (int l = 0; l < 3; ++l) {
        share[3 * k + l] = g[k] * d[3 * e + l];
        w[3 * k + l] += share[3 * k + l];
      }
    }
    if (atom_virial != nullptr)
      for (int k = 0; k < 9; ++k) atom_virial[9L * scatter[e] + k] -= 0.5 * share[k];
  }
  for (int k = 0; k < 3; ++k) force[3 * own + k] += total[k];
  for (int k = 0; k < 9; ++k) {
    virial[k] -= w[k];
    if (atom_virial != nullptr) atom_virial[9 * own + k] -= 0.5 * w[k];
  }
}

DPA2_INSTANTIATE(Assemble)

}  // namespace dpa2
