// Energies of pairs from a table, in double, on the edges of a frame (theory 9.7).
#pragma once

#include <cmath>
#include <cstddef>
#include <vector>

#include "fold/pair_table.hpp"
#include "graph/frame.hpp"
#include "graph/parallel.hpp"

namespace dpa2 {

/// Where negative gradients are added to; null: not wanted.
struct PairForces {
  double* force = nullptr;        ///< (nall, 3)
  double* virial = nullptr;       ///< (9)
  double* atom_virial = nullptr;  ///< (nall, 9)
  bool deepmd = false;  ///< the atomic virial of an edge goes to the neighbour as a whole (theory 9.3), else by halves to its ends
};

/// Weighted means of the distances of each atom to its neighbours: the nearest count most.
struct MeanDistances {
  std::vector<double> numerator, denominator;  ///< (nlocal): the sums of r e^(-r/alpha) and of e^(-r/alpha)
  [[nodiscard]] bool clamped(std::size_t i) const { return numerator[i] != 0 && denominator[i] < math::least_weight; }
  [[nodiscard]] double bounded(std::size_t i) const { return denominator[i] < math::least_weight ? math::least_weight : denominator[i]; }
  [[nodiscard]] double mean(std::size_t i) const { return numerator[i] / bounded(i); }
  /// The derivative of the mean of atom i by the distance r of a neighbour.
  [[nodiscard]] double slope(std::size_t i, double r, double alpha) const {
    const double den = bounded(i);
    double inner = (1 - r / alpha) / den;
    if (denominator[i] == den) inner += numerator[i] / (alpha * den * den);
    return std::exp(-r / alpha) * inner;
  }
};

/// A table, which must outlive this, and what threads need with it: one per evaluation.
class PairTable {
 public:
  explicit PairTable(const FoldedPairTable& table) : f_(table), ntypes_(table.bias.cols) {}

  /// energy (nlocal) = half of the energies of an atom's pairs, and its type's bias; 0 for virtual atoms. Throws invalid_input for a pair
  /// that is closer than the table begins.
  void energies(const Frame& frame, int threads, double* energy) const;
  /// partition: of the pairs. += that of sum_i seed_i E_i + distance_seed_i mean_i; alpha and means only where distance_seed is not null.
  void gradient(const Frame& frame, const Partition& partition, const double* seed, const MeanDistances* means, double alpha,
                const double* distance_seed, const PairForces& out);

 private:
  /// The energy of a pair and its derivative by the distance.
  void pair(int ti, int tj, double r, double& energy, double& slope) const;

  const FoldedPairTable& f_;
  int ntypes_;
  // Of the threads, and their sums.
  std::vector<Buffer<double>> force_, atom_virial_, virial_;
  Buffer<double> sum_;
};

/// How fast the mean of atom i changes along the frame's direction.
double mean_distance_rate(const Frame& frame, const MeanDistances& means, double alpha, std::size_t i);
/// alpha in angstrom.
void mean_distances(const Frame& frame, double alpha, int threads, MeanDistances& out);

}  // namespace dpa2
