// From the descriptors of the first blocks to the first g1 (theory 7).
#pragma once

#include <string>

#include "fold/matrix.hpp"

namespace dpa2 {

struct FoldedEntry {
  Matrix shape;      ///< (width, n1); empty where the widths agree and it is the identity
  Matrix type_term;  ///< (ntypes, n1): the transformed type embedding that is added, or empty

  template <class F>
  void for_each(const std::string& at, F& f) const {
    give(f, at + ".shape", shape);
    give(f, at + ".type_term", type_term);
  }
};

FoldedEntry fold_entry(const Config& config, RawTensors& raw, const Matrix& tebd);
/// The adjoint, `+=`, also into the gradient of `tebd`.
void unfold_entry(RawTensors& raw, const Matrix& tebd, const FoldedEntry& gradient, Weights& to, Matrix& tebd_gradient);

}  // namespace dpa2
