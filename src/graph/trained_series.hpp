// Series of a network whose weights change (theory S6, 15.4): made again for each set of weights, on the intervals of the last one,
// and the way back for gradients, from the coefficients through the nodes that they come from.
#pragma once

#include <memory>
#include <vector>

#include "cpu/embedding_net.hpp"
#include "cpu/tabulate.hpp"
#include "graph/packing.hpp"
#include "graph/series.hpp"

namespace dpa2 {

/// Where the table of a network begins, from one set of weights to the next.
struct SeriesStart {
  std::vector<SeriesPlace> places;  ///< none: the whole range
  bool none = false;                ///< there was no table, and there will be none: to find that out again would cost more than a step
};

/// Those of a model's networks.
struct SeriesPlaces {
  SeriesStart repinit, three_body;
  int threads = 1;  ///< to make them
};

/// What training keeps of a table.
class TrainedSeries {
 public:
  /// As build_series; null where that is false. The arrays of `net` must outlive this. Intervals hold for hidden
  /// layers as well, which gradients see. `start` becomes where the next table of this network begins.
  template <class T>
  static std::unique_ptr<TrainedSeries> build(Storage& storage, SeriesTable<T>& table, const EmbeddingNet<double>& net, SeriesStart& start,
                                              int ncurves, double lo, double hi, int pair_types, int threads);
  /// g += what the network's weights get of da (nintervals, K, nc), the gradient of the coefficients, on `threads` threads, each with a
  /// gradient of its own.
  template <class T>
  void gradient(const T* da, const std::vector<EmbeddingGradient<double>>& g) const;

  [[nodiscard]] const EmbeddingNet<double>& net() const noexcept { return net_; }

 private:
  TrainedSeries(const EmbeddingNet<double>& net, std::vector<SeriesPlace> places, double lo, double hi)
      : net_(net), places_(std::move(places)), lo_(lo), hi_(hi) {}

  EmbeddingNet<double> net_;
  std::vector<SeriesPlace> places_;
  double lo_, hi_;
};

}  // namespace dpa2
