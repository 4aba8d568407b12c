#include "graph/series.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string>
#include <vector>

#include "cpu/kernels.hpp"
#include "error.hpp"

namespace dpa2 {

namespace {

struct Interval {
  int level, index;
  double centre, half;
  std::vector<double> a;  // (K, channels)
};

/// Chebyshev coefficients of a network on single intervals.
class Fitter {
 public:
  Fitter(const EmbeddingNet<double>& net, int terms)
      : net_(net), terms_(terms), nodes_(2 * terms), channels_(net.layers[net.nlayers - 1].out) {
    cosines_.resize(static_cast<std::size_t>(nodes_ * nodes_));
    for (int l = 0; l < net.nlayers; ++l) node_work_ += static_cast<double>(net.layers[l].in) * net.layers[l].out;
    for (int k = 0; k < nodes_; ++k)
      for (int j = 0; j < nodes_; ++j)
        cosines_[static_cast<std::size_t>(k * nodes_ + j)] = std::cos(pi * k * (j + 0.5) / nodes_) * (k == 0 ? 1.0 : 2.0) / nodes_;
  }

  int channels() const { return channels_; }
  /// Multiplications so far.
  double work() const { return work_; }

  /// Fills interval.a with the mean of two curves; the return value is the largest of the coefficients that are left out, over the
  /// largest value.
  double fit(Interval& interval, int curve, int other) {
    work_ += nodes_ * ((other != curve ? 2.0 : 1.0) * node_work_ + static_cast<double>(channels_) * nodes_);
    const Kernels<double>& k = kernels<double>();
    const Arena::Mark mark = arena_.mark();
    const int m = padded<double>(nodes_);
    double* s = arena_.take<double>(m);
    int* combination = arena_.take<int>(m);
    for (int j = 0; j < m; ++j) {
      s[j] = interval.centre + interval.half * std::cos(pi * (std::min(j, nodes_ - 1) + 0.5) / nodes_);
      combination[j] = curve;
    }
    EmbeddingTape<double> tape, second;
    k.embedding_layout(net_, m, false, arena_, tape);
    k.embedding(net_, m, tape, false, s, combination);
    double* y = tape.y[net_.nlayers - 1];
    if (other != curve) {
      std::fill_n(combination, m, other);
      k.embedding_layout(net_, m, false, arena_, second);
      k.embedding(net_, m, second, false, s, combination);
      for (std::ptrdiff_t i = 0; i < static_cast<std::ptrdiff_t>(channels_) * m; ++i) y[i] = 0.5 * (y[i] + second.y[net_.nlayers - 1][i]);
    }
    interval.a.assign(static_cast<std::size_t>(terms_ * channels_), 0.0);
    double largest = 1e-300, rest = 0;
    for (int c = 0; c < channels_; ++c) {
      const double* row = y + static_cast<std::ptrdiff_t>(c) * m;
      for (int j = 0; j < nodes_; ++j) largest = std::max(largest, std::abs(row[j]));
      for (int t = 0; t < nodes_; ++t) {
        double sum = 0;
        for (int j = 0; j < nodes_; ++j) sum += cosines_[static_cast<std::size_t>(t * nodes_ + j)] * row[j];
        if (t < terms_)
          interval.a[static_cast<std::size_t>(t * channels_ + c)] = sum;
        else
          rest = std::max(rest, std::abs(sum));
      }
    }
    arena_.release(mark);
    return std::isfinite(largest) ? rest / largest : HUGE_VAL;
  }

 private:
  static constexpr double pi = 3.14159265358979323846;
  const EmbeddingNet<double>& net_;
  int terms_, nodes_, channels_;
  double node_work_ = 0, work_ = 0;
  std::vector<double> cosines_;
  Arena arena_;
};

}  // namespace

bool series_wanted() {
  const char* value = std::getenv("DPA2_SERIES");
  const std::string text = value == nullptr || *value == '\0' ? "on" : value;
  if (text != "on" && text != "off") throw invalid_input("DPA2_SERIES is '", text, "': it can be 'on', the default, or 'off'");
  return text == "on";
}

template <class T>
bool build_series(Storage& storage, SeriesTable<T>& table, const EmbeddingNet<double>& net, int ncurves, double lo, double hi,
                  int pair_types) {
  constexpr int K = series_terms<T>;
  if (!(hi > lo) || !std::isfinite(lo) || !std::isfinite(hi) || ncurves > series_max_curves) return false;
  Fitter fitter(net, K);
  const int channels = fitter.channels(), nc = padded<T>(channels);
  const std::size_t per_interval = static_cast<std::size_t>(K) * static_cast<std::size_t>(nc);
  std::vector<Interval> intervals;
  std::vector<std::size_t> first, last;  // of a curve
  int deepest = 0;
  for (int curve = 0; curve < ncurves; ++curve) {
    const int other = pair_types > 0 ? curve % pair_types * pair_types + curve / pair_types : curve;
    if (other < curve) {
      first.push_back(first[static_cast<std::size_t>(other)]);
      last.push_back(last[static_cast<std::size_t>(other)]);
      continue;
    }
    first.push_back(intervals.size());
    std::vector<Interval> open{{0, 0, 0.5 * (lo + hi), 0.5 * (hi - lo), {}}};
    while (!open.empty()) {
      Interval i = std::move(open.back());
      open.pop_back();
      if (fitter.work() > series_max_work) return false;
      if (fitter.fit(i, curve, other) <= series_tolerance<T>) {
        deepest = std::max(deepest, i.level);
        intervals.push_back(std::move(i));
        if (intervals.size() * per_interval * 2 * sizeof(T) > series_max_bytes) return false;
        continue;
      }
      if (i.level == series_max_level) return false;
      const double half = 0.5 * i.half;
      open.push_back({i.level + 1, 2 * i.index + 1, i.centre + half, half, {}});
      open.push_back({i.level + 1, 2 * i.index, i.centre - half, half, {}});
    }
    last.push_back(intervals.size());
  }

  table.nc = nc;
  table.nintervals = static_cast<int>(intervals.size());
  table.ncells = 1 << deepest;
  table.lo = lo;
  table.hi = hi;
  table.inv_cell = table.ncells / (hi - lo);
  int* cells = storage.take<int>(static_cast<std::size_t>(ncurves) * static_cast<std::size_t>(table.ncells));
  double* centre = storage.take<double>(intervals.size());
  double* inv_half = storage.take<double>(intervals.size());
  T* a = storage.take<T>(intervals.size() * per_interval);
  T* at = storage.take<T>(intervals.size() * per_interval);
  for (int curve = 0; curve < ncurves; ++curve)
    for (std::size_t n = first[static_cast<std::size_t>(curve)]; n < last[static_cast<std::size_t>(curve)]; ++n) {
      const int count = 1 << (deepest - intervals[n].level);
      std::fill_n(cells + static_cast<std::ptrdiff_t>(curve) * table.ncells + static_cast<std::ptrdiff_t>(intervals[n].index) * count,
                  count, static_cast<int>(n));
    }
  for (std::size_t n = 0; n < intervals.size(); ++n) {
    const Interval& i = intervals[n];
    centre[n] = i.centre;
    inv_half[n] = 1.0 / i.half;
    for (int k = 0; k < K; ++k)
      for (int c = 0; c < channels; ++c) {
        const T v = static_cast<T>(i.a[static_cast<std::size_t>(k * channels + c)]);
        a[n * per_interval + static_cast<std::size_t>(k * nc + c)] = v;
        at[n * per_interval + static_cast<std::size_t>(c * K + k)] = v;
      }
  }
  table.interval = cells;
  table.centre = centre;
  table.inv_half = inv_half;
  table.a = a;
  table.at = at;
  return true;
}

template bool build_series(Storage&, SeriesTable<double>&, const EmbeddingNet<double>&, int, double, double, int);
template bool build_series(Storage&, SeriesTable<float>&, const EmbeddingNet<double>&, int, double, double, int);

}  // namespace dpa2
