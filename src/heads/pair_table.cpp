#include "heads/pair_table.hpp"

#include <cmath>
#include <cstddef>

#include "neighbors/errors.hpp"

namespace dpa2 {
namespace {

/// f(centre) for all of them; nothing depends on how they are shared out.
template <class F>
void for_centres(int nlocal, int threads, F f) {
  threads = std::max(1, std::min(threads, nlocal));
  parallel(threads, [&](int t) {
    const auto bound = [&](int k) { return static_cast<int>(static_cast<std::int64_t>(nlocal) * k / threads); };
    for (int i = bound(t); i < bound(t + 1); ++i) f(i);
  });
}

const Edges& pairs_of(const Frame& frame) { return frame.pairs != nullptr ? *frame.pairs : *frame.edges; }

template <class F>
void for_edges(const Edges& edges, int i, F f) {
  const std::size_t row = static_cast<std::size_t>(i);
  for (std::int64_t e = edges.start[row]; e < edges.start[row + 1]; ++e) f(static_cast<std::size_t>(e));
}

}  // namespace

void PairTable::pair(int ti, int tj, double r, double& energy, double& slope) const {
  if (!f_.grid.reaches(r)) {
    energy = slope = 0;
    return;
  }
  double along = 0;
  const int k = f_.grid.piece(r, along);
  const std::size_t row = (static_cast<std::size_t>(ti) * static_cast<std::size_t>(ntypes_) + static_cast<std::size_t>(tj)) *
                              static_cast<std::size_t>(f_.grid.nspline) +
                          static_cast<std::size_t>(k);
  math::pair_energy(f_.pieces.a.data() + math::pair_table_terms * row, along, f_.grid.step, energy, slope);
}

void PairTable::energies(const Frame& frame, int threads, double* energy) const {
  const Edges& edges = pairs_of(frame);
  if (const ClosestPair& c = edges.closest; c.i >= 0 && c.r < f_.grid.rmin) throw before_table(c.i, c.j, c.r, f_.grid.rmin);
  for_centres(edges.nlocal, threads, [&](int i) {
    double sum = 0;
    const int type = frame.types[i];
    for_edges(edges, i, [&](std::size_t e) {
      double u = 0, slope = 0;
      pair(type, frame.types[edges.j[e]], edges.r[e], u, slope);
      sum += u;
    });
    energy[i] = type < 0 ? 0.0 : 0.5 * sum + f_.bias(0, type);
  });
}

void PairTable::gradient(const Frame& frame, const Partition& partition, const double* seed, const MeanDistances* means, double alpha,
                         const double* distance_seed, const PairForces& out) {
  const Edges& edges = pairs_of(frame);
  const std::size_t nt = static_cast<std::size_t>(partition.threads()), nall = static_cast<std::size_t>(edges.nall);
  for (auto* buffers : {&force_, &atom_virial_, &virial_})
    if (buffers->size() < nt) buffers->resize(nt);
  parallel(partition.threads(), [&](int t) {
    const ThreadRange& range = partition.range(t);
    const std::size_t s = static_cast<std::size_t>(t), rows = static_cast<std::size_t>(range.rows());
    double* force = force_[s].zeros(3 * rows);
    double* virial = virial_[s].zeros(9);
    double* atom_virial = out.atom_virial != nullptr ? atom_virial_[s].zeros(9 * rows) : nullptr;
    for (int i = range.begin; i < range.end; ++i) {
      const std::size_t centre = static_cast<std::size_t>(i), own = static_cast<std::size_t>(i - range.begin);
      const double pairs = 0.5 * seed[i], distance = distance_seed != nullptr ? distance_seed[i] : 0.0;
      if (pairs == 0 && distance == 0) continue;
      for_edges(edges, i, [&](std::size_t e) {
        const double r = edges.r[e];
        double u = 0, slope = 0;
        pair(frame.types[i], frame.types[edges.j[e]], r, u, slope);
        double g = pairs * slope;
        if (distance != 0) g += distance * means->slope(centre, r, alpha);
        if (g == 0 || r == 0) return;
        const std::size_t other = static_cast<std::size_t>(partition.local()[e]);
        for (std::size_t k = 0; k < 3; ++k) {
          const double gamma = g / r * edges.d[3 * e + k];
          force[3 * own + k] += gamma;
          force[3 * other + k] -= gamma;
          for (std::size_t l = 0; l < 3; ++l) {
            const double share = gamma * edges.d[3 * e + l];
            virial[3 * k + l] -= share;
            if (atom_virial == nullptr) continue;
            atom_virial[9 * other + 3 * k + l] -= out.deepmd ? share : 0.5 * share;
            if (!out.deepmd) atom_virial[9 * own + 3 * k + l] -= 0.5 * share;
          }
        }
      });
    }
  });
  const auto add = [&](const std::vector<Buffer<double>>& parts, int width, double* to) {
    const std::size_t size = nall * static_cast<std::size_t>(width);
    double* sum = sum_.resize(size);
    partition.merge(parts, width, sum, width);
    for (std::size_t k = 0; k < size; ++k) to[k] += sum[k];
  };
  if (out.force != nullptr) add(force_, 3, out.force);
  if (out.atom_virial != nullptr) add(atom_virial_, 9, out.atom_virial);
  for (std::size_t k = 0; out.virial != nullptr && k < 9; ++k)
    for (std::size_t s = 0; s < nt; ++s) out.virial[k] += virial_[s].data()[k];
}

double mean_distance_rate(const Frame& frame, const MeanDistances& means, double alpha, std::size_t i) {
  const Edges& edges = pairs_of(frame);
  double rate = 0, velocity[3];
  for_edges(edges, static_cast<int>(i),
            [&](std::size_t e) { rate += means.slope(i, edges.r[e], alpha) * edge_velocity(frame, edges, i, e, velocity); });
  return rate;
}

void mean_distances(const Frame& frame, double alpha, int threads, MeanDistances& out) {
  const Edges& edges = pairs_of(frame);
  out.numerator.resize(static_cast<std::size_t>(edges.nlocal));
  out.denominator.resize(out.numerator.size());
  for_centres(edges.nlocal, threads, [&](int i) {
    double num = 0, den = 0;
    for_edges(edges, i, [&](std::size_t e) {
      const double a = std::exp(-edges.r[e] / alpha);
      num += edges.r[e] * a;
      den += a;
    });
    out.numerator[static_cast<std::size_t>(i)] = num;
    out.denominator[static_cast<std::size_t>(i)] = den;
  });
}

}  // namespace dpa2
