// One row of the environment matrix of a block of the model, and its gradient (theory 2, 12.15). Rows are made where they are needed and
// are never stored: they cost less than what they would have to be read from.
#pragma once

#include "cuda/env_mat.hpp"
#include "cuda/portable.cuh"

namespace dpa2 {

/// An edge of the master list, angstrom. The list is in double; T is what its row is made in.
template <class T>
struct EdgeOf {
  T d[3], r;

  __device__ __forceinline__ EdgeOf(const double* vectors, const double* lengths, int at) {
    for (int x = 0; x < 3; ++x) d[x] = T(vectors[3LL * at + x]);
    r = T(lengths[at]);
  }
};
using Edge = EdgeOf<real>;

/// R (4) and the switch, for a centre of this type.
template <class T>
__device__ __forceinline__ void environment(const cuda::StatisticsArgs<real>& s, const EdgeOf<T>& edge, int type, real (&R)[4], real& sw) {
  T E[4], exact;
  math::env_row(edge.d, edge.r, math::Cutoff<T>{s.rcut_smth, s.inv_width, s.protection}, E, exact);
  sw = real(exact);
  if (sizeof(T) > sizeof(real)) type = opaque(type);  // wider numbers leave no registers for statistics that are read too early
  for (int x = 0; x < 4; ++x) R[x] = real((E[x] - s.mean[4 * type + x]) * s.inv_std[4 * type + x]);
}

/// g (3) += the gradient of d, given those of R and of the switch.
template <class T>
__device__ __forceinline__ void environment_backward(const cuda::StatisticsArgs<real>& s, const EdgeOf<T>& edge, int type,
                                                     const real (&dR)[4], real dsw, real (&g)[3]) {
  T dE[4], sum[3] = {g[0], g[1], g[2]};
  for (int x = 0; x < 4; ++x) dE[x] = T(dR[x]) * s.inv_std[4 * type + x];
  math::env_row_backward(edge.d, edge.r, math::Cutoff<T>{s.rcut_smth, s.inv_width, s.protection}, dE, T(dsw), sum);
  for (int x = 0; x < 3; ++x) g[x] = real(sum[x]);
}

}  // namespace dpa2
