// One row of the environment matrix of a block of the model, and its gradient (theory 2, 12.15). Rows are made where they are needed and
// are never stored: they cost less than what they would have to be read from.
#pragma once

#include "cuda/env_mat.hpp"
#include "cuda/portable.cuh"

namespace dpa2 {

/// An edge of the master list in the precision of the model, angstrom.
struct Edge {
  real d[3], r;

  __device__ __forceinline__ Edge(const double* vectors, const double* lengths, int at) {
    for (int x = 0; x < 3; ++x) d[x] = real(vectors[3LL * at + x]);
    r = real(lengths[at]);
  }
};

/// R (4) and the switch, for a centre of this type.
__device__ __forceinline__ void environment(const cuda::StatisticsArgs<real>& s, const Edge& edge, int type, real (&R)[4], real& sw) {
  real E[4];
  math::env_row(edge.d, edge.r, math::Cutoff<real>{s.rcut_smth, s.inv_width, s.protection}, E, sw);
  for (int x = 0; x < 4; ++x) R[x] = (E[x] - s.mean[4 * type + x]) * s.inv_std[4 * type + x];
}

/// g (3) += the gradient of d, given those of R and of the switch.
__device__ __forceinline__ void environment_backward(const cuda::StatisticsArgs<real>& s, const Edge& edge, int type, const real (&dR)[4],
                                                     real dsw, real (&g)[3]) {
  real dE[4];
  for (int x = 0; x < 4; ++x) dE[x] = dR[x] * s.inv_std[4 * type + x];
  math::env_row_backward(edge.d, edge.r, math::Cutoff<real>{s.rcut_smth, s.inv_width, s.protection}, dE, dsw, g);
}

}  // namespace dpa2
