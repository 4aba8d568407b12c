#include "model/combined.hpp"

#include <algorithm>
#include <cstddef>

#include "error.hpp"

namespace dpa2 {
namespace {

/// The sum of the energies of a frame, and those of its atoms, where they are wanted.
void write_energies(const Frame& frame, const std::vector<double>& energies, const Outputs& out) {
  const std::size_t n = static_cast<std::size_t>(frame.edges->nlocal);
  if (double* energy = out.array("energy")) {
    *energy = 0;
    for (std::size_t i = 0; i < n; ++i) *energy += energies[i];
  }
  if (double* atom_energy = out.array("atom_energy")) std::copy_n(energies.data(), n, atom_energy);
}

void clear(const Frame& frame, const Outputs& out) {
  const std::size_t nall = static_cast<std::size_t>(frame.edges->nall);
  if (double* force = out.array("force")) std::fill_n(force, 3 * nall, 0.0);
  if (double* virial = out.array("virial")) std::fill_n(virial, 9, 0.0);
  if (double* atom_virial = out.array("atom_virial")) std::fill_n(atom_virial, 9 * nall, 0.0);
}

PairForces forces(const Outputs& out, bool deepmd) { return {out.array("force"), out.array("virial"), out.array("atom_virial"), deepmd}; }

}  // namespace

void TableEvaluator::descriptor(const Frame&, int, Exchange*, const Outputs&) { throw internal_error("a pair table has no descriptor"); }

void TableEvaluator::gradient(const Frame& frame, int threads, const double* seed, bool deepmd, const Outputs& out) {
  clear(frame, out);
  partition_.build(*frame.edges, std::max(1, std::min(threads, frame.edges->nlocal)));
  table_.gradient(frame, partition_, seed, nullptr, 0.0, nullptr, forces(out, deepmd));
}

void TableEvaluator::evaluate(const Frame& frame, int threads, Exchange*, AtomVirial atom_virial, const Outputs& out) {
  const std::size_t n = static_cast<std::size_t>(frame.edges->nlocal);
  energies_.resize(n);
  table_.energies(frame, threads, energies_.data());
  write_energies(frame, energies_, out);
  if (out.array("force") == nullptr) return;
  if (frame.weights == nullptr) seed_.assign(n, 1.0);
  gradient(frame, threads, frame.weights != nullptr ? frame.weights : seed_.data(), atom_virial == AtomVirial::deepmd, out);
}

void TableEvaluator::vjp(const Frame& frame, int threads, Exchange*, const Seeds& seeds, const Outputs& out) {
  energies_.resize(static_cast<std::size_t>(frame.edges->nlocal));
  table_.energies(frame, threads, energies_.data());  // sees to it that no pair is too close
  gradient(frame, threads, seeds.head, false, out);
}

std::int64_t TableEvaluator::memory_estimate(const MemoryQuestion& q) {
  const std::int64_t sums = Count::of(static_cast<double>(q.natoms) * 8 * (3 + (q.atom_virial != AtomVirial::none ? 9 : 0) * 2)).value();
  return (Count{partition_bytes(q)} + neighbor_bytes(q) + result_bytes(q) + sums).value();
}

void TableEvaluator::require(std::int64_t natoms, bool gradient, AtomVirial atom_virial) {
  MemoryQuestion q;
  q.natoms = natoms;
  q.gradient = gradient;
  q.atom_virial = atom_virial;
  require_memory(memory_estimate(q), natoms);
}

template <class T>
void ZblEvaluator<T>::gradient(const Frame& frame, int threads, const double* weights, const double* network, bool deepmd,
                               const Outputs& out) {
  if (frame.pairs != nullptr) pairs_.build(*frame.pairs, std::max(1, std::min(threads, frame.pairs->nlocal)));
  zbl_.gradient(frame, frame.pairs != nullptr ? pairs_ : network_.partition(), weights, network, forces(out, deepmd));
}

template <class T>
void ZblEvaluator<T>::evaluate(const Frame& frame, int threads, Exchange* exchange, AtomVirial atom_virial, const Outputs& out) {
  zbl_.look(frame, threads);
  energies_.resize(static_cast<std::size_t>(frame.edges->nlocal) + 1);
  Frame of_network = frame;
  of_network.weights = zbl_.network_weights(frame, frame.weights);
  Outputs network;
  network.set("atom_energy", energies_.data());
  for (const char* name : {"force", "virial", "atom_virial"}) network.set(name, out.array(name));
  network_.evaluate(of_network, threads, exchange, atom_virial, network);
  if (out.array("force") != nullptr) gradient(frame, threads, frame.weights, energies_.data(), atom_virial == AtomVirial::deepmd, out);
  zbl_.mix(frame, energies_.data());
  write_energies(frame, energies_, out);
}

template <class T>
void ZblEvaluator<T>::vjp(const Frame& frame, int threads, Exchange* exchange, const Seeds& seeds, const Outputs& out) {
  zbl_.look(frame, threads);
  Seeds of_network = seeds;
  if (seeds.head != nullptr) of_network.head = zbl_.network_weights(frame, seeds.head);
  network_.vjp(frame, threads, exchange, of_network, out);
  if (seeds.head != nullptr) gradient(frame, threads, seeds.head, network_.values(), false, out);
}

template <class T>
void ZblEvaluator<T>::training_seeds(const Frame& frame, const double* seeds, double* values, double* tangents) {
  const std::size_t n = static_cast<std::size_t>(frame.edges->nlocal);
  zbl_.network_weight_rates(frame, tangents);
  const double* weights = zbl_.network_weights(frame, nullptr);
  for (std::size_t i = 0; i < n; ++i) {
    values[i] = weights[i];
    tangents[i] += weights[i] * seeds[i];
  }
}

// Model::hessian_product refuses them by name.
void TableEvaluator::hessian_product(const Frame&, int, double*) { throw internal_error("the Hessian of a pair table"); }
template <class T>
void ZblEvaluator<T>::hessian_product(const Frame&, int, double*) {
  throw internal_error("the Hessian of a zbl model");
}

template class ZblEvaluator<double>;
template class ZblEvaluator<float>;

}  // namespace dpa2
