// What sums over the edges of a centre are divided by (theory 8): kappa_n of the convolution, kappa_h of the moments.
#pragma once

#include "math/portable.hpp"

namespace dpa2 {
namespace math {

/// The two factors, for a centre with n edges of the repformer. `F` brings sqrt for T.
template <class F, class T>
struct Normalisation {
  int nsel;     ///< of the repformer
  bool smooth;  ///< the switch is: the width of the list counts, whatever is in it
  bool root;    ///< use_sqrt_nnei

  /// kappa_n
  DPA2_MATH T conv(int n) const { return smooth ? T(1) / static_cast<T>(nsel) : T(1) / (T(1e-4) + static_cast<T>(n)); }
  /// kappa_h
  DPA2_MATH T moment(int n) const {
    if (!root) return conv(n);
    return smooth ? T(1) / F::sqrt(static_cast<T>(nsel)) : T(1) / (T(1e-4) + F::sqrt(static_cast<T>(n)));
  }
};

}  // namespace math
}  // namespace dpa2
