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

  /// Fills interval.a (K, channels); the return value is the largest of the coefficients that are left out, over the largest value.
  double fit(SeriesInterval& interval) {
    const int curve = interval.place.curve, other = interval.place.other;
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

namespace {

/// The intervals of build_series; false where there are none.
template <class T>
bool fit_intervals(std::vector<SeriesInterval>& intervals, const EmbeddingNet<double>& net, int ncurves, double lo, double hi,
                   int pair_types) {
  constexpr int K = series_terms<T>;
  if (!(hi > lo) || !std::isfinite(lo) || !std::isfinite(hi) || ncurves > series_max_curves) return false;
  Fitter fitter(net, K);
  const int channels = fitter.channels();
  const std::size_t bytes = series_bytes<T>(channels);
  for (int curve = 0; curve < ncurves; ++curve) {
    const int other = other_order(curve, pair_types);
    if (other < curve) continue;
    std::vector<SeriesInterval> open{{{0, 0, curve, other}, 0.5 * (lo + hi), 0.5 * (hi - lo), {}}};
    while (!open.empty()) {
      SeriesInterval i = std::move(open.back());
      open.pop_back();
      if (fitter.work() > series_max_work) return false;
      if (fitter.fit(i) <= series_tolerance<T>) {
        intervals.push_back(std::move(i));
        if (intervals.size() * bytes > series_max_bytes) return false;
        continue;
      }
      const auto [level, index, of, order] = i.place;
      if (level == series_max_level) return false;
      const double half = 0.5 * i.half;
      open.push_back({{level + 1, 2 * index + 1, of, order}, i.centre + half, half, {}});
      open.push_back({{level + 1, 2 * index, of, order}, i.centre - half, half, {}});
    }
  }
  return true;
}

int deepest_level(const std::vector<SeriesInterval>& intervals) {
  int deepest = 0;
  for (const SeriesInterval& i : intervals) deepest = std::max(deepest, i.place.level);
  return deepest;
}

/// (curves, cells of the deepest level) = the interval that covers a cell
void write_cells(const std::vector<SeriesInterval>& intervals, int deepest, int* cells) {
  const std::ptrdiff_t all = std::ptrdiff_t{1} << deepest;
  for (std::size_t m = 0; m < intervals.size(); ++m) {
    const SeriesPlace& place = intervals[m].place;
    const int count = 1 << (deepest - place.level);
    for (const int curve : {place.curve, place.other})
      std::fill_n(cells + curve * all + static_cast<std::ptrdiff_t>(place.index) * count, count, static_cast<int>(m));
  }
}

}  // namespace

template <class T>
bool build_series(Storage& storage, SeriesTable<T>& table, const EmbeddingNet<double>& net, int ncurves, double lo, double hi,
                  int pair_types) {
  std::vector<SeriesInterval> intervals;
  if (!fit_intervals<T>(intervals, net, ncurves, lo, hi, pair_types)) return false;
  const int channels = net.layers[net.nlayers - 1].out;
  write_series(storage, table, intervals, channels, channels, ncurves, lo, hi);
  return true;
}

template <class T>
bool build_series(Storage& storage, SeriesTable<T>& table, const std::vector<EmbeddingNet<double>>& nets, double lo, double hi) {
  if (nets.size() > static_cast<std::size_t>(series_max_curves)) return false;
  std::vector<SeriesInterval> intervals;
  for (std::size_t k = 0; k < nets.size(); ++k) {
    const std::size_t first = intervals.size();
    if (!fit_intervals<T>(intervals, nets[k], 1, lo, hi, 0)) return false;
    for (std::size_t m = first; m < intervals.size(); ++m) intervals[m].place.curve = intervals[m].place.other = static_cast<int>(k);
  }
  const EmbeddingNet<double>& net = nets.front();
  const int channels = net.layers[net.nlayers - 1].out;
  write_series(storage, table, intervals, channels, channels, static_cast<int>(nets.size()), lo, hi);
  return true;
}

template <class T>
std::optional<FoldedSeries> fit_series(const EmbeddingNet<double>& net, int ncurves, double lo, double hi, int pair_types) {
  std::vector<SeriesInterval> intervals;
  if (!fit_intervals<T>(intervals, net, ncurves, lo, hi, pair_types)) return std::nullopt;
  FoldedSeries out;
  out.terms = series_terms<T>;
  out.channels = net.layers[net.nlayers - 1].out;
  out.curves = ncurves;
  const int deepest = deepest_level(intervals);
  out.cells = 1 << deepest;
  out.intervals = static_cast<int>(intervals.size());
  out.lo = lo;
  out.hi = hi;
  out.interval.resize(static_cast<std::size_t>(ncurves) * static_cast<std::size_t>(out.cells));
  write_cells(intervals, deepest, out.interval.data());
  for (const SeriesInterval& i : intervals) {
    out.centre.push_back(i.centre);
    out.half.push_back(i.half);
    out.coefficients.insert(out.coefficients.end(), i.a.begin(), i.a.end());
  }
  return out;
}

template <class T>
void write_series(Storage& storage, SeriesTable<T>& table, const std::vector<SeriesInterval>& intervals, int channels, int ld, int ncurves,
                  double lo, double hi) {
  constexpr int K = series_terms<T>;
  const int nc = padded<T>(channels);
  const std::size_t n = intervals.size(), per_interval = static_cast<std::size_t>(K) * static_cast<std::size_t>(nc);
  const int deepest = deepest_level(intervals);
  table.nc = nc;
  table.nintervals = static_cast<int>(n);
  table.ncells = 1 << deepest;
  table.lo = lo;
  table.hi = hi;
  table.inv_cell = table.ncells / (hi - lo);
  int* cells = storage.take<int>(static_cast<std::size_t>(ncurves) * static_cast<std::size_t>(table.ncells));
  write_cells(intervals, deepest, cells);
  double* centre = storage.take<double>(n);
  double* inv_half = storage.take<double>(n);
  T* a = storage.take<T>(n * per_interval);
  T* at = storage.take<T>(n * per_interval);
  for (std::size_t m = 0; m < n; ++m) {
    const SeriesInterval& i = intervals[m];
    centre[m] = i.centre;
    inv_half[m] = 1.0 / i.half;
    for (int k = 0; k < K; ++k)
      for (int c = 0; c < channels; ++c) {
        const T v = static_cast<T>(i.a[static_cast<std::size_t>(k * ld + c)]);
        a[m * per_interval + static_cast<std::size_t>(k * nc + c)] = v;
        at[m * per_interval + static_cast<std::size_t>(c * K + k)] = v;
      }
  }
  table.interval = cells;
  table.centre = centre;
  table.inv_half = inv_half;
  table.a = a;
  table.at = at;
}

#define DPA2_INSTANTIATE_FOR(T)                                                                                    \
  template bool build_series(Storage&, SeriesTable<T>&, const EmbeddingNet<double>&, int, double, double, int);    \
  template bool build_series(Storage&, SeriesTable<T>&, const std::vector<EmbeddingNet<double>>&, double, double); \
  template std::optional<FoldedSeries> fit_series<T>(const EmbeddingNet<double>&, int, double, double, int);       \
  template void write_series(Storage&, SeriesTable<T>&, const std::vector<SeriesInterval>&, int, int, int, double, double);
DPA2_INSTANTIATE_FOR(double)
DPA2_INSTANTIATE_FOR(float)
#undef DPA2_INSTANTIATE_FOR

}  // namespace dpa2
