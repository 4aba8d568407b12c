// The environment matrix of the edges of one block of the model, and its gradient (theory 2, 12.15).
// One thread per edge; edge[e]: number in the master list, null for the master list itself. d (., 3), r: angstrom.
#include "cuda/block.cuh"

using namespace dpa2;

// R (nedge, 4) =, sw (nedge) =; mean, inv_std (ntypes, 4)
extern "C" __global__ void env_mat(int nedge, real* R, real* sw, const double* d, const double* r, const int* edge, const int* centre,
                                   const int* types, const real* mean, const real* inv_std, real rcut_smth, real inv_width,
                                   real protection) {
  const int e = blockIdx.x * blockDim.x + threadIdx.x;
  if (e >= nedge) return;
  const int at = edge != nullptr ? edge[e] : e;
  const int type = types[centre[at]];
  const real v[3] = {real(d[3LL * at]), real(d[3LL * at + 1]), real(d[3LL * at + 2])};
  real E[4], weight;
  math::env_row(v, real(r[at]), math::Cutoff<real>{rcut_smth, inv_width, protection}, E, weight);
  for (int x = 0; x < 4; ++x) R[4LL * e + x] = (E[x] - mean[4 * type + x]) * inv_std[4 * type + x];
  sw[e] = weight;
}

// gamma (master edges, 3) = or +=, given dR (nedge, 4) and dsw (nedge) or null. With direct != 0 (1/rcut) the first column of dR is
// the gradient of r/rcut and the others that of d/rcut: no switch, no statistics.
extern "C" __global__ void env_mat_backward(int nedge, real* gamma, int accumulate, const real* dR, const real* dsw, const double* d,
                                            const double* r, const int* edge, const int* centre, const int* types, const real* inv_std,
                                            real rcut_smth, real inv_width, real protection, real direct) {
  const int e = blockIdx.x * blockDim.x + threadIdx.x;
  if (e >= nedge) return;
  const int at = edge != nullptr ? edge[e] : e;
  const int type = types[centre[at]];
  const real v[3] = {real(d[3LL * at]), real(d[3LL * at + 1]), real(d[3LL * at + 2])};
  const real length = real(r[at]);
  real g[3] = {0, 0, 0}, dE[4];
  for (int x = 0; x < 4; ++x) dE[x] = dR[4LL * e + x] * inv_std[4 * type + x];
  if (direct != real(0)) {
    for (int x = 0; x < 3; ++x) {
      const real along = length > real(0) ? v[x] / length : real(0);
      g[x] = (dR[4LL * e + 1 + x] + dR[4LL * e] * along) * direct;
    }
    for (int x = 0; x < 4; ++x) dE[x] = real(0);
  }
  math::env_row_backward(v, length, math::Cutoff<real>{rcut_smth, inv_width, protection}, dE, dsw != nullptr ? dsw[e] : real(0), g);
  for (int x = 0; x < 3; ++x) gamma[3LL * at + x] = accumulate != 0 ? gamma[3LL * at + x] + g[x] : g[x];
}
