// The energies of a network and of a pair table as one: the table where atoms come close, the network elsewhere
// (theory 9.8).
#pragma once

#include <vector>

#include "heads/pair_table.hpp"

namespace dpa2 {

class Zbl {
 public:
  /// Both must outlive this.
  Zbl(const FoldedPairTable& table, const FoldedShare& share) : table_(table), share_(share) {}

  /// Looks at the lists of a frame. Throws invalid_input for a pair closer than the table begins.
  void look(const Frame& frame, int threads);
  /// (nlocal): how much the network's energies count in the sum that `weights` say; null: ones.
  const double* network_weights(const Frame& frame, const double* weights);
  /// rates (nlocal): how fast those of ones change along the frame's direction, which moves the table's shares (theory 15.2).
  void network_weight_rates(const Frame& frame, double* rates) const;
  /// Adds what the network does not know of: the table, and how the shares depend on distances. network (nlocal): its energies.
  void gradient(const Frame& frame, const Partition& partition, const double* weights, const double* network, const PairForces& out);
  /// In place, (nlocal): from the network's energies to those of the model.
  void mix(const Frame& frame, double* energies) const;
  /// Atoms that count, without a near neighbour, that get the table's energy. ids (nlocal): their numbers, null: rows.
  Clamped clamped(const int* ids) const;

 private:
  [[nodiscard]] bool counts(const Frame& frame, std::size_t i) const;

  PairTable table_;
  const FoldedShare& share_;
  MeanDistances means_;
  std::vector<double> energy_, part_, slope_;  ///< per atom: of the table; its share, and the derivative of that by the mean distance
  std::vector<char> counted_;
  std::vector<double> network_weights_, seed_, distance_seed_;
};

}  // namespace dpa2
