// Energies of pairs from a table, alone or mixed with those of a network (docs/theory.md, combinations).
#pragma once

#include "cuda/pair_table.hpp"
#include "fold/pair_table.hpp"
#include "gpu/frame.hpp"
#include "gpu/loader.hpp"
#include "gpu/queue.hpp"

namespace dpa2::gpu {

/// A table on the edges of the master list.
template <class T>
class PairTable {
 public:
  PairTable(const FoldedPairTable& table, Loader& loader);

  /// energy (centres) =
  void energies(Queue& queue, const Frame& frame, double* energy) const;
  /// gamma (master edges, 3) = that of sum_i seed_i energy_i; null: ones
  void gradient(Queue& queue, const Frame& frame, const double* seed, T* gamma) const;

  [[nodiscard]] cuda::PairTableArgs args(const Frame& frame) const;
  /// Of `args`, alpha and the rest as PairGradientArgs has them.
  void gradient(Queue& queue, cuda::PairGradientArgs<T> args) const;

 private:
  Function energies_, gradient_;
  math::PairGrid grid_;
  int ntypes_;
  const double *pieces_ = nullptr, *bias_ = nullptr;
};

/// A network and a table as one.
template <class T>
class Zbl {
 public:
  /// What a gradient needs, of the centres.
  struct Kept {
    double *network = nullptr, *pairs = nullptr, *distance = nullptr, *denominator = nullptr, *numerator = nullptr;
  };

  Zbl(const FoldedPairTable& table, const FoldedShare& share, Loader& loader);

  /// energy (centres): from the network's to those of the model.
  Kept mix(Queue& queue, const Frame& frame, double* energy, bool gradient) const;
  /// The weights of the network's energies in sum_i seed_i energy_i; seed (centres) or null: ones; `memory` (centres) may be used for it.
  const double* network_seeds(Queue& queue, const Frame& frame, const double* seed, const Kept& kept, double* memory) const;
  /// gamma (master edges, 3) += what the network's gradient does not have.
  void gradient(Queue& queue, const Frame& frame, const double* seed, const Kept& kept, T* gamma) const;

 private:
  PairTable<T> table_;
  Function mix_, seeds_;
  double rmin_, rmax_, alpha_;
  const double* bias_ = nullptr;
  const int* counted_ = nullptr;
};

extern template class PairTable<float>;
extern template class PairTable<double>;
extern template class Zbl<float>;
extern template class Zbl<double>;

}  // namespace dpa2::gpu
