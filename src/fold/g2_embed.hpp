// The edges of the repformer: statistics and the embedding g2 (theory 8).
#pragma once

#include <string>

#include "fold/dense.hpp"
#include "fold/statistics.hpp"

namespace dpa2 {

struct FoldedG2Embed {
  FoldedStatistics statistics;
  double inv_rcut = 0;  ///< of edges that are taken without the environment matrix
  FoldedDense dense;    ///< (1, n2)

  template <class F>
  void for_each(const std::string& at, F& f) const {
    statistics.for_each(at, f);
    f(at + ".inv_rcut", inv_rcut);
    dense.for_each(at + ".g2", f);
  }
};

FoldedG2Embed fold_g2_embed(const Config& config, RawTensors& raw);
/// The adjoint, `+=`.
void unfold_g2_embed(const FoldedG2Embed& gradient, Weights& to);

}  // namespace dpa2
