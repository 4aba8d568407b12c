// The three-body block (theory 6).
#pragma once

#include <string>

#include "fold/embedding_net.hpp"
#include "fold/statistics.hpp"

namespace dpa2 {

struct FoldedThreeBody {
  FoldedStatistics statistics;
  FoldedEmbeddingNet net;       ///< of the types of a pair in order
  double inv_nsel_squared = 0;  ///< 1 / sel^2

  template <class F>
  void for_each(const std::string& at, F& f) const {
    statistics.for_each(at, f);
    net.for_each(at, f);
    f(at + ".inv_nsel_squared", inv_nsel_squared);
  }
};

FoldedThreeBody fold_three_body(const Config& config, RawTensors& raw, const Matrix& tebd);
/// The adjoint, `+=`, also into the gradient of `tebd`.
void unfold_three_body(const Config& config, RawTensors& raw, const Matrix& tebd, const FoldedThreeBody& gradient, Weights& to,
                       Matrix& tebd_gradient);

}  // namespace dpa2
