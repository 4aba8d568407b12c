// Rows of the environment matrix made in double for a network in float32 (theory 2, 8.5).
#pragma once

#include "graph/lanes.hpp"
#include "wide.hpp"

namespace dpa2 {

/// The repformer's rows of the edges of one centre. Layer after layer multiplies what rounding does to them, most of all to the switch, of
/// which attention takes what it lacks to 1 (by_fall). An edge costs a thousandth of its attention. T is float, or dual of it.
template <class T>
class PreciseRows {
  using D = Wide<T>;

 public:
  /// The first n edges of centre i, with the statistics of its type; memory from the arena.
  PreciseRows(const Frame& frame, int i, int n, const BlockParams<double>& statistics, int type, Arena& arena)
      : n_(n),
        cut_(statistics.cut),
        mean_(statistics.mean + 4L * type),
        inv_std_(statistics.inv_std + 4L * type),
        d_(arena.take<D>(3L * n)),
        r_(arena.take<D>(n)) {
    load_lanes(frame, i, n, n, d_, r_);
  }
  /// env (4, m) and sw (m) on the first n lanes; fall (n) = 1 - sw, unless null.
  void forward(int m, T* env, T* sw, T* fall) const {
    for (int e = 0; e < n_; ++e) {
      const D d[3] = {d_[e], d_[n_ + e], d_[2 * n_ + e]};
      D row[4], switched;
      math::env_row(d, r_[e], cut_, row, switched);
      for (int x = 0; x < 4; ++x) env[x * m + e] = narrow<T>((row[x] - mean_[x]) * inv_std_[x]);
      sw[e] = narrow<T>(switched);
      if (fall != nullptr) fall[e] = narrow<T>(math::switch_fall(r_[e], cut_.rcut_smth, cut_.inv_width));
    }
  }
  /// gamma (3, m) += the gradient of the edge vectors, given dR (4, m) and dsw (m).
  void backward(int m, T* gamma, const T* dR, const T* dsw) const {
    for (int e = 0; e < n_; ++e) {
      const D d[3] = {d_[e], d_[n_ + e], d_[2 * n_ + e]};
      D dE[4], sum[3];
      for (int x = 0; x < 4; ++x) dE[x] = wide(dR[x * m + e]) * inv_std_[x];
      for (int x = 0; x < 3; ++x) sum[x] = wide(gamma[x * m + e]);
      math::env_row_backward(d, r_[e], cut_, dE, wide(dsw[e]), sum);
      for (int x = 0; x < 3; ++x) gamma[x * m + e] = narrow<T>(sum[x]);
    }
  }

 private:
  int n_;
  math::Cutoff<double> cut_;
  const double *mean_, *inv_std_;
  D *d_, *r_;
};

}  // namespace dpa2
