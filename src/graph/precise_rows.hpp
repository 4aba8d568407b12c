// Rows of the environment matrix made in double for a network in float32 (theory 2, 8.5).
#pragma once

#include "graph/lanes.hpp"

namespace dpa2 {

/// The repformer's rows of the edges of one centre. Layer after layer multiplies what rounding does to them, most of all to the switch, of
/// which attention takes what it lacks to 1 (math::by_fall). An edge costs a thousandth of its attention.
class PreciseRows {
 public:
  /// The first n edges of centre i, with the statistics of its type; memory from the arena.
  PreciseRows(const Frame& frame, int i, int n, const BlockParams<double>& statistics, int type, Arena& arena)
      : n_(n),
        cut_(statistics.cut),
        mean_(statistics.mean + 4L * type),
        inv_std_(statistics.inv_std + 4L * type),
        d_(arena.take<double>(3L * n)),
        r_(arena.take<double>(n)) {
    load_lanes(frame, i, n, n, d_, r_);
  }
  /// env (4, m) and sw (m) on the first n lanes; fall (n) = 1 - sw, unless null.
  void forward(int m, float* env, float* sw, float* fall) const {
    for (int e = 0; e < n_; ++e) {
      const double d[3] = {d_[e], d_[n_ + e], d_[2 * n_ + e]};
      double row[4], switched;
      math::env_row(d, r_[e], cut_, row, switched);
      for (int x = 0; x < 4; ++x) env[x * m + e] = static_cast<float>((row[x] - mean_[x]) * inv_std_[x]);
      sw[e] = static_cast<float>(switched);
      if (fall != nullptr) fall[e] = static_cast<float>(math::switch_fall(r_[e], cut_.rcut_smth, cut_.inv_width));
    }
  }
  /// gamma (3, m) += the gradient of the edge vectors, given dR (4, m) and dsw (m).
  void backward(int m, float* gamma, const float* dR, const float* dsw) const {
    for (int e = 0; e < n_; ++e) {
      const double d[3] = {d_[e], d_[n_ + e], d_[2 * n_ + e]};
      double dE[4], sum[3];
      for (int x = 0; x < 4; ++x) dE[x] = dR[x * m + e] * inv_std_[x];
      for (int x = 0; x < 3; ++x) sum[x] = gamma[x * m + e];
      math::env_row_backward(d, r_[e], cut_, dE, static_cast<double>(dsw[e]), sum);
      for (int x = 0; x < 3; ++x) gamma[x * m + e] = static_cast<float>(sum[x]);
    }
  }

 private:
  int n_;
  math::Cutoff<double> cut_;
  const double *mean_, *inv_std_;
  double *d_, *r_;
};

}  // namespace dpa2
