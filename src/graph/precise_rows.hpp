// Rows of the environment matrix made in double for a network in float32 (theory 2, 8.5).
#pragma once

#include "graph/lanes.hpp"
#include "math/wide.hpp"

namespace dpa2 {

/// The repformer's rows of the edges of one centre. Layer after layer multiplies what rounding does to them, most of all to the switch, of
/// which attention takes what it lacks to 1 (by_fall). T is float, or dual of it.
template <class T>
class PreciseRows {
  using D = Wide<T>;

 public:
  /// The first n edges of centre i, with the statistics of its type; memory from the arena.
  PreciseRows(const Frame& frame, int i, int n, const BlockParams<double>& statistics, int type, Arena& arena)
      : n_(n),
        lanes_(padded<D>(n)),
        cut_(statistics.cut),
        mean_(statistics.mean + 4L * type),
        inv_std_(statistics.inv_std + 4L * type),
        d_(arena.take<D>(3L * lanes_)),
        r_(arena.take<D>(lanes_)),
        row_(arena.take<D>(4L * lanes_)),
        sw_(arena.take<D>(lanes_)) {
    load_lanes(frame, i, n, lanes_, d_, r_);
  }
  /// env (4, m) and sw (m) on the first n lanes; fall (n) = 1 - sw, unless null.
  void forward(int m, T* env, T* sw, T* fall) const {
    kernels<D>().env_mat(n_, lanes_, row_, sw_, d_, r_, cut_, mean_, inv_std_);
    for (int x = 0; x < 4; ++x)
      for (int e = 0; e < n_; ++e) env[x * m + e] = narrow<T>(row_[x * lanes_ + e]);
    for (int e = 0; e < n_; ++e) sw[e] = narrow<T>(sw_[e]);
    for (int e = 0; fall != nullptr && e < n_; ++e) fall[e] = narrow<T>(math::switch_fall(r_[e], cut_.rcut_smth, cut_.inv_width));
  }
  /// gamma (3, m) += the gradient of the edge vectors, given dR (4, m) and dsw (m).
  void backward(int m, T* gamma, const T* dR, const T* dsw, Arena& arena) const {
    D* sum = arena.take<D>(3L * lanes_);
    for (int e = 0; e < lanes_; ++e) {
      const bool edge = e < n_;
      for (int x = 0; x < 4; ++x) row_[x * lanes_ + e] = edge ? wide(dR[x * m + e]) : D(0);
      for (int x = 0; x < 3; ++x) sum[x * lanes_ + e] = edge ? wide(gamma[x * m + e]) : D(0);
      sw_[e] = edge ? wide(dsw[e]) : D(0);
    }
    kernels<D>().env_mat_backward(lanes_, sum, row_, sw_, d_, r_, cut_, inv_std_);
    for (int x = 0; x < 3; ++x)
      for (int e = 0; e < n_; ++e) gamma[x * m + e] = narrow<T>(sum[x * lanes_ + e]);
  }

 private:
  int n_, lanes_;
  math::Cutoff<double> cut_;
  const double *mean_, *inv_std_;
  D *d_, *r_, *row_, *sw_;
};

}  // namespace dpa2
