#include "cpu/env_mat.hpp"

#include "cpu/simd.hpp"

namespace dpa2 {

using simd::load;
using simd::store;
using simd::Vec;
using simd::width;

template <class T, class Isa>
void EnvMat<T, Isa>::forward(int n, int m, T* R, T* sw, const T* d, const T* r, const math::Cutoff<Real<T>>& cut, const Real<T>* mean,
                             const Real<T>* inv_std) {
  for (int e = 0; e < m; e += width<T>) {
    const Vec<T> dv[3] = {load<T>(d + e), load<T>(d + m + e), load<T>(d + 2 * m + e)};
    Vec<T> row[4], s;
    math::env_row(dv, load<T>(r + e), cut, row, s);
    for (int x = 0; x < 4; ++x) store<T>(R + x * m + e, (row[x] - mean[x]) * inv_std[x]);
    store<T>(sw + e, s);
  }
  for (int e = n; e < m; ++e) {
    for (int x = 0; x < 4; ++x) R[x * m + e] = T(0);
    sw[e] = T(0);
  }
}

template <class T, class Isa>
void EnvMat<T, Isa>::backward(int m, T* gamma, const T* dR, const T* dsw, const T* d, const T* r, const math::Cutoff<Real<T>>& cut,
                              const Real<T>* inv_std) {
  for (int e = 0; e < m; e += width<T>) {
    const Vec<T> dv[3] = {load<T>(d + e), load<T>(d + m + e), load<T>(d + 2 * m + e)};
    Vec<T> dE[4], g[3];
    for (int x = 0; x < 4; ++x) dE[x] = load<T>(dR + x * m + e) * inv_std[x];
    for (int x = 0; x < 3; ++x) g[x] = load<T>(gamma + x * m + e);
    math::env_row_backward(dv, load<T>(r + e), cut, dE, load<T>(dsw + e), g);
    for (int x = 0; x < 3; ++x) store<T>(gamma + x * m + e, g[x]);
  }
}

DPA2_INSTANTIATE(EnvMat)
DPA2_INSTANTIATE_DUAL(EnvMat)

}  // namespace dpa2
