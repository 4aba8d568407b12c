// One row of the environment matrix and its gradient (theory 2, 12.15).
#pragma once

#include "math/switch.hpp"

namespace dpa2 {
namespace math {

/// Radial ranges of one block: lengths in angstrom.
template <class T>
struct Cutoff {
  T rcut_smth;
  T inv_width;   ///< 1/(rcut - rcut_smth)
  T protection;  ///< added to r in the denominators
};

/// E = [sw/q, sw d/q^2], q = r + protection, before the statistics are applied; d (3), E (4).
template <class T, class V>
DPA2_MATH void env_row(const V* d, V r, const Cutoff<T>& cut, V* E, V& sw) {
  V dsw;
  smooth_switch(r, cut.rcut_smth, cut.inv_width, sw, dsw);
  const V inv_q = T(1) / (r + cut.protection);
  const V f = sw * inv_q * inv_q;
  E[0] = sw * inv_q;
  E[1] = f * d[0];
  E[2] = f * d[1];
  E[3] = f * d[2];
}

/// gamma (3) += dE/dd contracted with dE (4) and dsw; the derivative of r is taken as 0 at r = 0.
template <class T, class V>
DPA2_MATH void env_row_backward(const V* d, V r, const Cutoff<T>& cut, const V* dE, V dsw_bar, V* gamma) {
  V sw, slope;
  smooth_switch(r, cut.rcut_smth, cut.inv_width, sw, slope);
  const V zero = r - r;
  const V inv_q = T(1) / (r + cut.protection);
  const V inv_q2 = inv_q * inv_q;
  const V along = dE[1] * d[0] + dE[2] * d[1] + dE[3] * d[2];
  const V total = dsw_bar + dE[0] * inv_q + along * inv_q2;
  const V dr = total * slope - sw * inv_q2 * (dE[0] + T(2) * along * inv_q);
  const V inv_r = choose(r > zero, T(1) / r, zero);
  const V f = sw * inv_q2;
  const V g = dr * inv_r;
  for (int x = 0; x < 3; ++x) gamma[x] += dE[1 + x] * f + g * d[x];
}

}  // namespace math
}  // namespace dpa2
