#include "heads/zbl.hpp"

#include <cstddef>

namespace dpa2 {

bool Zbl::counts(const Frame& frame, std::size_t i) const { return frame.types[i] >= 0 && share_.counted(0, frame.types[i]) != 0; }

void Zbl::look(const Frame& frame, int threads) {
  const std::size_t n = static_cast<std::size_t>(frame.edges->nlocal);
  for (std::vector<double>* rows : {&energy_, &part_, &slope_}) rows->resize(n);
  table_.energies(frame, threads, energy_.data());
  mean_distances(frame, share_.alpha, threads, means_);
  counted_.resize(n);
  for (std::size_t i = 0; i < n; ++i) counted_[i] = counts(frame, i);
  for (std::size_t i = 0; i < n; ++i) math::table_share(means_.mean(i), share_.rmin, share_.rmax, part_[i], slope_[i]);
}

const double* Zbl::network_weights(const Frame& frame, const double* weights) {
  network_weights_.resize(part_.size() + 1);  // an address also where there are no atoms
  for (std::size_t i = 0; i < part_.size(); ++i)
    network_weights_[i] = counts(frame, i) ? (1 - part_[i]) * (weights != nullptr ? weights[i] : 1.0) : 0.0;
  return network_weights_.data();
}

void Zbl::network_weight_rates(const Frame& frame, double* rates) const {
  for (std::size_t i = 0; i < part_.size(); ++i)
    rates[i] = counts(frame, i) && slope_[i] != 0 ? -slope_[i] * mean_distance_rate(frame, means_, share_.alpha, i) : 0.0;
}

void Zbl::gradient(const Frame& frame, const Partition& partition, const double* weights, const double* network, const PairForces& out) {
  seed_.assign(part_.size(), 0.0);
  distance_seed_.assign(part_.size(), 0.0);
  for (std::size_t i = 0; i < part_.size(); ++i) {
    if (!counts(frame, i)) continue;
    const double weight = weights != nullptr ? weights[i] : 1.0;
    seed_[i] = weight * part_[i];
    distance_seed_[i] = weight * (energy_[i] - network[i]) * slope_[i];
  }
  table_.gradient(frame, partition, seed_.data(), &means_, share_.alpha, distance_seed_.data(), out);
}

void Zbl::mix(const Frame& frame, double* energies) const {
  for (std::size_t i = 0; i < part_.size(); ++i)
    energies[i] = counts(frame, i) ? (1 - part_[i]) * energies[i] + part_[i] * energy_[i] + share_.bias(0, frame.types[i]) : 0.0;
}

Clamped Zbl::clamped(const int* ids) const {
  Clamped found;
  for (std::size_t i = 0; i < part_.size(); ++i) {
    if (counted_[i] == 0 || !means_.clamped(i) || part_[i] == 0) continue;
    const int id = ids != nullptr ? ids[i] : static_cast<int>(i);
    if (found.atom < 0 || id < found.atom) found.atom = id;
    ++found.count;
  }
  return found;
}

}  // namespace dpa2
