// The first block: moments of the embedded environment (theory 5).
#pragma once

#include <string>
#include <vector>

#include "fold/embedding_net.hpp"
#include "fold/statistics.hpp"

namespace dpa2 {

struct FoldedRepinit {
  FoldedStatistics statistics;
  FoldedEmbeddingNet net;
  std::vector<FoldedEmbeddingNet> nets;  ///< of se_e2_a, in its place: one per combination of types
  double inv_nsel = 0;

  template <class F>
  void for_each(const std::string& at, F& f) const {
    statistics.for_each(at, f);
    if (nets.empty()) net.for_each(at, f);
    for (std::size_t k = 0; k < nets.size(); ++k) nets[k].for_each(at + ".networks." + std::to_string(k), f);
    f(at + ".inv_nsel", inv_nsel);
  }
};

FoldedRepinit fold_repinit(const Config& config, RawTensors& raw, const Matrix& tebd);
/// Of se_e2_a, whose block has the names of this one.
FoldedRepinit fold_se_e2_a(const Config& config, RawTensors& raw);
/// The adjoint, `+=`, also into the gradient of `tebd`.
void unfold_repinit(const Config& config, RawTensors& raw, const Matrix& tebd, const FoldedRepinit& gradient, Weights& to,
                    Matrix& tebd_gradient);

/// (ntypes * ntypes, width) the embedding of a padded slot, rows by the type of atom 0 and of the centre (theory P6); empty where the
/// statistics have no mean, which leaves padded slots nothing to add. The CPU evaluates it with its own kernels.
Matrix fold_padded_embedding(const Config& config, const FoldedRepinit& repinit);

}  // namespace dpa2
