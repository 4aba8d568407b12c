// Series of a network whose weights change (theory S6, 15.4): made again for each set of weights, and the way
// back for gradients, from the coefficients through the nodes that they come from.
#pragma once

#include <memory>
#include <vector>

#include "cpu/embedding_net.hpp"
#include "cpu/tabulate.hpp"
#include "graph/packing.hpp"
#include "graph/series.hpp"

namespace dpa2 {

/// What training keeps of a table.
class TrainedSeries {
 public:
  /// As build_series; null where that is false, and for activations with kinks, of which it would be false in the end. The arrays of `net`
  /// must outlive this. Intervals hold for hidden layers as well, which gradients see. They follow from the weights alone: what a step
  /// computes does not depend on the steps before it.
  template <class T>
  static std::unique_ptr<TrainedSeries> build(Storage& storage, SeriesTable<T>& table, const EmbeddingNet<double>& net, int ncurves,
                                              double lo, double hi, int pair_types, int threads);
  /// g += what the network's weights get of da (nintervals, K, nc), the gradient of the coefficients, on `threads` threads, each with a
  /// gradient of its own.
  template <class T>
  void gradient(const T* da, const std::vector<EmbeddingGradient<double>>& g) const;

  [[nodiscard]] const EmbeddingNet<double>& net() const noexcept { return net_; }
  [[nodiscard]] const std::vector<SeriesPlace>& places() const noexcept { return places_; }

 private:
  TrainedSeries(const EmbeddingNet<double>& net, std::vector<SeriesPlace> places, double lo, double hi)
      : net_(net), places_(std::move(places)), lo_(lo), hi_(hi) {}

  EmbeddingNet<double> net_;
  std::vector<SeriesPlace> places_;
  double lo_, hi_;
};

}  // namespace dpa2
