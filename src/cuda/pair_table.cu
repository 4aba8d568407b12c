// Energies of pairs from a table, the mix of a table with a network by how near the next atoms are, and the gradients of both
// (docs/theory.md, combinations). In double whatever the precision of the model. A warp per centre.
#include "cuda/block.cuh"
#include "cuda/counted.cuh"
#include "cuda/failed.cuh"
#include "cuda/pair_table.hpp"
#include "math/pair_table.hpp"

using namespace dpa2;

namespace {

__device__ __forceinline__ int row_of_warp() { return blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; }

/// The energy of a pair and its derivative by the distance; not numbers where the table has not begun.
__device__ __forceinline__ void pair(const cuda::PairTableArgs& a, int ti, int tj, double r, double& energy, double& slope) {
  const math::PairGrid grid{a.rmin, a.step, a.rcut, a.nspline};
  energy = slope = 0;
  if (r < a.rmin) {
    energy = slope = ::nan("");
  } else if (grid.reaches(r)) {
    double along = 0;
    const int k = grid.piece(r, along);
    math::pair_energy(a.pieces + math::pair_table_terms * ((1LL * ti * a.ntypes + tj) * a.nspline + k), along, a.step, energy, slope);
  }
}

/// What a centre has of its edges; of all lanes.
struct Sums {
  double energy = 0, numerator = 0, denominator = 0;
  __device__ __forceinline__ Sums(const cuda::PairTableArgs& a, int i, double alpha) {
    for (int e = a.start[i] + threadIdx.x % 32; e < a.start[i + 1]; e += 32) {
      const double r = a.r[e];
      double u, slope;
      pair(a, a.types[i], a.types[a.j[e]], r, u, slope);
      energy += u;
      if (alpha == 0) continue;
      const double weight = ::exp(-r / alpha);
      numerator += r * weight;
      denominator += weight;
    }
    energy = 0.5 * sum_of_warp(energy) + a.bias[a.types[i]];
    if (alpha == 0) return;
    numerator = sum_of_warp(numerator);
    denominator = sum_of_warp(denominator);
  }
};

__device__ __forceinline__ double bounded(double denominator) {
  return denominator < math::least_weight ? math::least_weight : denominator;
}

}  // namespace

extern "C" __global__ void __launch_bounds__(128, 8) pair_energies(const cuda::PairEnergiesArgs p) {
  const int i = row_of_warp();
  if (i >= p.table.centres) return;
  const Sums sums(p.table, i, 0);
  if (threadIdx.x % 32 == 0) p.energy[i] = unless_failed(p.table.failed, p.table.given_types[i] < 0 ? 0.0 : sums.energy);
}

extern "C" __global__ void __launch_bounds__(128) zbl(const cuda::ZblArgs p) {
  const int i = row_of_warp();
  if (i >= p.table.centres) return;
  const Sums sums(p.table, i, p.alpha);
  if (threadIdx.x % 32 != 0) return;
  double w, slope;
  math::table_share(sums.numerator / bounded(sums.denominator), p.rmin, p.rmax, w, slope);
  const int type = p.table.types[i];
  const bool counted = counts(p.table.given_types, p.table.types, p.counted, i);
  const double network = p.energy[i], mixed = (1 - w) * network + w * sums.energy + p.bias[type];
  p.energy[i] = unless_failed(p.table.failed, counted ? mixed : 0.0);
  if (p.network != nullptr) {
    p.network[i] = counted ? 1 - w : 0.0;
    p.pairs[i] = counted ? w : 0.0;
    p.distance[i] = counted ? (sums.energy - network) * slope : 0.0;
    p.denominator[i] = sums.denominator;
    p.numerator[i] = sums.numerator;
  }
  if (!counted || sums.numerator == 0 || sums.denominator >= math::least_weight || w == 0) return;
  const int f = i / p.per_frame, number = p.ids != nullptr ? p.ids[i] : i - f * p.per_frame;
  atomicMax(&p.systems[f].clamped, cuda::first_code(number));
  atomicAdd(&p.systems[f].clamped_count, 1);
}

extern "C" __global__ void __launch_bounds__(128) zbl_seeds(const cuda::ZblSeedsArgs p) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < p.centres) p.out[i] = p.network[i] == 0 ? 0.0 : p.network[i] * p.seed[i];
}

extern "C" __global__ void __launch_bounds__(128) pair_gradient(const cuda::PairGradientArgs<real> p) {
  const int i = row_of_warp();
  const cuda::PairTableArgs& a = p.table;
  if (i >= a.centres) return;
  const double seed = a.given_types[i] < 0 ? 0.0 : p.seed != nullptr ? p.seed[i] : 1.0;
  const double pairs = 0.5 * seed * (p.pairs != nullptr ? p.pairs[i] : 1.0), distance = p.pairs != nullptr ? seed * p.distance[i] : 0.0;
  const double den = distance != 0 ? bounded(p.denominator[i]) : 1.0;
  // Where the denominator is bounded it does not change with the distances.
  const double whole = distance != 0 && den == p.denominator[i] ? p.numerator[i] / (p.alpha * den * den) : 0.0;
  for (int e = a.start[i] + threadIdx.x % 32; e < a.start[i + 1]; e += 32) {
    const double r = a.r[e];
    double g = 0;
    if (pairs != 0) {
      double u, slope;
      pair(a, a.types[i], a.types[a.j[e]], r, u, slope);
      g = pairs * slope;
    }
    if (distance != 0) g += distance * ::exp(-r / p.alpha) * ((1 - r / p.alpha) / den + whole);
    const double along = r != 0 ? g / r : 0.0;
    for (int k = 0; k < 3; ++k) {
      real* out = p.gamma + 3LL * e + k;
      const double value = along * a.d[3LL * e + k];
      *out = p.accumulate != 0 ? real(*out + value) : real(value);
    }
  }
}
