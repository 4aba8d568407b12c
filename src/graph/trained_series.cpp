#include "graph/trained_series.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <utility>

#include "cpu/kernels.hpp"
#include "graph/series.hpp"
#include "threads.hpp"

namespace dpa2 {
namespace {

constexpr double pi = 3.14159265358979323846;

/// The Chebyshev nodes of an interval and the transformation to coefficients; of the next ones only as many as show how fast they fall.
class Nodes {
 public:
  static constexpr int shown = 8;
  explicit Nodes(int terms) : terms_(terms), nodes_(padded<double>(2 * terms)) {
    to_coefficients_.resize(static_cast<std::size_t>(terms_ + shown) * static_cast<std::size_t>(nodes_));
    for (int k = 0; k < terms_ + shown; ++k)
      for (int j = 0; j < nodes_; ++j)
        to_coefficients_[static_cast<std::size_t>(k * nodes_ + j)] = std::cos(pi * k * (j + 0.5) / nodes_) * (k == 0 ? 1.0 : 2.0) / nodes_;
  }
  [[nodiscard]] int terms() const { return terms_; }
  [[nodiscard]] int count() const { return nodes_; }
  /// (terms + shown, count)
  [[nodiscard]] const double* matrix() const { return to_coefficients_.data(); }
  /// s (count): the nodes of an interval of the range lo to hi
  void place(double* s, const SeriesPlace& p, double lo, double hi) const {
    const double half = 0.5 * (hi - lo) / static_cast<double>(1 << p.level), centre = lo + half * (2.0 * p.index + 1.0);
    for (int j = 0; j < nodes_; ++j) s[j] = centre + half * std::cos(pi * (j + 0.5) / nodes_);
  }

 private:
  int terms_, nodes_;
  std::vector<double> to_coefficients_;
};

/// to (columns, rows) = factor * from (rows, ld)^T, or += it
void transpose(int rows, int columns, double* to, long to_ld, const double* from, long ld, double factor, bool add) {
  for (int c = 0; c < columns; ++c)
    for (int r = 0; r < rows; ++r) {
      const double value = factor * from[static_cast<long>(r) * ld + c];
      double& out = to[static_cast<long>(c) * to_ld + r];
      out = add ? out + value : value;
    }
}

/// What the layers of a network need side by side, each padded; the last one comes first.
int total_width(const EmbeddingNet<double>& net) {
  int width = 0;
  for (int l = 0; l < net.nlayers; ++l) width += padded<double>(net.layers[l].out);
  return width;
}

/// The multiplications of a fit.
double fit_work(const EmbeddingNet<double>& net, const Nodes& nodes, bool two) {
  double node = 0;
  for (int l = 0; l < net.nlayers; ++l) node += static_cast<double>(net.layers[l].in) * net.layers[l].out;
  const double rows = (nodes.terms() + Nodes::shown) * padded<double>(net.layers[net.nlayers - 1].out) + Nodes::shown * total_width(net);
  return nodes.count() * ((two ? 2.0 : 1.0) * node + rows);
}

/// Infinite where one of the numbers is not finite.
double largest_of(const double* a, int rows, int columns, int ld) {
  double largest = 0;
  for (int r = 0; r < rows; ++r)
    for (int c = 0; c < columns; ++c) {
      const double size = std::abs(a[static_cast<long>(r) * ld + c]);
      if (!std::isfinite(size)) return HUGE_VAL;
      largest = std::max(largest, size);
    }
  return largest;
}

/// Of the layers before the last one, which only gradients see: the factor of the tolerance.
constexpr double inner_tolerance = 16;

/// a (terms + shown, nc) = the coefficients of an interval. Whether they are enough: the largest of those that are left out is at most
/// `tolerance` of the largest value. The layers before are held to that as well. Values may say nothing of them, as where the last layer
/// is zero, but the gradient of the last layer is made of them.
bool fit(double* a, const Nodes& nodes, const EmbeddingNet<double>& net, const SeriesPlace& p, double lo, double hi, double tolerance,
         Arena& arena) {
  const Kernels<double>& k = kernels<double>();
  const Arena::Mark mark = arena.mark();
  const int m = nodes.count(), K = nodes.terms(), last = net.nlayers - 1, width = total_width(net);
  const int nc = padded<double>(net.layers[last].out), before = width - nc;
  double* s = arena.take<double>(m);
  int* combination = arena.take<int>(m);
  double* values = arena.take<double>(static_cast<long>(m) * width);
  double* rest = arena.take<double>(static_cast<long>(Nodes::shown) * width);
  std::fill_n(values, static_cast<std::ptrdiff_t>(m) * width, 0.0);
  nodes.place(s, p, lo, hi);
  const bool two = p.other != p.curve;
  for (const int curve : {p.curve, p.other}) {
    const Arena::Mark of_curve = arena.mark();
    EmbeddingTape<double> tape;
    std::fill_n(combination, m, curve);
    k.embedding_layout(net, m, false, arena, tape);
    k.embedding(net, m, tape, false, s, combination);
    for (int l = last, at = 0; l >= 0; at += padded<double>(net.layers[l--].out))
      transpose(net.layers[l].out, m, values + at, width, tape.y[l], m, two ? 0.5 : 1.0, true);
    arena.release(of_curve);
    if (!two) break;
  }
  const int panel = padded<double>(1);
  k.linear(K + Nodes::shown, nc, m, a, nc, nodes.matrix(), m, 1, values, width, panel, nullptr, false);
  const auto enough = [&](const double* left_out, int left_out_ld, const double* of, int columns, double most) {
    const double largest = largest_of(of, m, columns, width);
    return std::isfinite(largest) && largest_of(left_out, Nodes::shown, columns, left_out_ld) <= most * largest;
  };
  bool good = enough(a + static_cast<long>(K) * nc, nc, values, nc, tolerance);
  if (good && before > 0) {
    k.linear(Nodes::shown, before, m, rest, before, nodes.matrix() + static_cast<long>(K) * m, m, 1, values + nc, width, panel, nullptr,
             false);
    for (int l = last - 1, at = 0; good && l >= 0; at += padded<double>(net.layers[l--].out))
      good = enough(rest + at, before, values + nc + at, net.layers[l].out, inner_tolerance * tolerance);
  }
  arena.release(mark);
  return good;
}

/// Intervals with the coefficients (terms + shown, nc) of each.
struct Fitted {
  std::vector<SeriesPlace> places;
  std::vector<std::vector<double>> coefficients;
};

/// Round by round: where the terms are not enough, an interval is halved. False where that leads too far.
template <class T>
bool halve(Fitted& done, std::vector<SeriesPlace> open, const Nodes& nodes, const EmbeddingNet<double>& net, double lo, double hi,
           bool pairs, int threads) {
  const int out = net.layers[net.nlayers - 1].out, nc = padded<double>(out);
  const std::size_t size = static_cast<std::size_t>(nodes.terms() + Nodes::shown) * static_cast<std::size_t>(nc);
  const std::size_t bytes = static_cast<std::size_t>(2 * nodes.terms()) * static_cast<std::size_t>(padded<T>(out)) * sizeof(T);
  double work = 0;
  while (!open.empty()) {
    work += fit_work(net, nodes, pairs) * static_cast<double>(open.size());
    if (work > series_max_work) return false;
    std::vector<std::vector<double>> a(open.size());
    std::vector<char> good(open.size());
    parallel(threads, [&](int t) {
      Arena arena;
      for (std::size_t i = static_cast<std::size_t>(t); i < open.size(); i += static_cast<std::size_t>(threads)) {
        a[i].resize(size);
        double* aligned = arena.take<double>(static_cast<long>(size));
        good[i] = fit(aligned, nodes, net, open[i], lo, hi, series_tolerance<T>, arena);
        std::copy_n(aligned, size, a[i].data());
        arena.reset();
      }
    });
    std::vector<SeriesPlace> next;
    for (std::size_t i = 0; i < open.size(); ++i) {
      const SeriesPlace& p = open[i];
      if (good[i]) {
        done.places.push_back(p);
        done.coefficients.push_back(std::move(a[i]));
      } else if (p.level == series_max_level) {
        return false;
      } else {
        next.push_back({p.level + 1, 2 * p.index, p.curve, p.other});
        next.push_back({p.level + 1, 2 * p.index + 1, p.curve, p.other});
      }
    }
    if ((done.places.size() + next.size()) * bytes > series_max_bytes) return false;
    open = std::move(next);
  }
  return true;
}

template <class T>
void fill(Storage& storage, SeriesTable<T>& table, const Fitted& fitted, int channels, int ncurves, double lo, double hi) {
  constexpr int K = series_terms<T>;
  const std::size_t n = fitted.places.size();
  int deepest = 0;
  for (const SeriesPlace& p : fitted.places) deepest = std::max(deepest, p.level);
  const int nc = padded<double>(channels), tnc = padded<T>(channels);
  const std::size_t per_interval = static_cast<std::size_t>(K) * static_cast<std::size_t>(tnc);
  table.nc = tnc;
  table.nintervals = static_cast<int>(n);
  table.ncells = 1 << deepest;
  table.lo = lo;
  table.hi = hi;
  table.inv_cell = table.ncells / (hi - lo);
  int* cells = storage.take<int>(static_cast<std::size_t>(ncurves) * static_cast<std::size_t>(table.ncells));
  double* centre = storage.take<double>(n);
  double* inv_half = storage.take<double>(n);
  T* a = storage.take<T>(n * per_interval);
  T* at = storage.take<T>(n * per_interval);
  for (std::size_t i = 0; i < n; ++i) {
    const SeriesPlace& p = fitted.places[i];
    const double half = 0.5 * (hi - lo) / static_cast<double>(1 << p.level);
    centre[i] = lo + half * (2.0 * p.index + 1.0);
    inv_half[i] = 1.0 / half;
    const int count = 1 << (deepest - p.level);
    for (const int curve : {p.curve, p.other})
      std::fill_n(cells + static_cast<std::ptrdiff_t>(curve) * table.ncells + static_cast<std::ptrdiff_t>(p.index) * count, count,
                  static_cast<int>(i));
    for (int k = 0; k < K; ++k)
      for (int c = 0; c < std::min(nc, tnc); ++c) {
        const T v = static_cast<T>(fitted.coefficients[i][static_cast<std::size_t>(k * nc + c)]);
        a[i * per_interval + static_cast<std::size_t>(k * tnc + c)] = v;
        at[i * per_interval + static_cast<std::size_t>(c * K + k)] = v;
      }
  }
  table.interval = cells;
  table.centre = centre;
  table.inv_half = inv_half;
  table.a = a;
  table.at = at;
}

}  // namespace

template <class T>
std::unique_ptr<TrainedSeries> TrainedSeries::build(Storage& storage, SeriesTable<T>& table, const EmbeddingNet<double>& net,
                                                    SeriesStart& start, int ncurves, double lo, double hi, int pair_types, int threads) {
  if (start.none || !(hi > lo) || !std::isfinite(lo) || !std::isfinite(hi) || ncurves > series_max_curves) return nullptr;
  std::vector<SeriesPlace> open = std::move(start.places);
  start.places.clear();
  if (open.empty())
    for (int curve = 0; curve < ncurves; ++curve) {
      const int other = pair_types > 0 ? curve % pair_types * pair_types + curve / pair_types : curve;
      if (other >= curve) open.push_back({0, 0, curve, other});
    }
  Fitted fitted;
  start.none = !halve<T>(fitted, std::move(open), Nodes(series_terms<T>), net, lo, hi, pair_types > 0, threads);
  if (start.none) return nullptr;
  fill(storage, table, fitted, net.layers[net.nlayers - 1].out, ncurves, lo, hi);
  start.places = fitted.places;
  return std::unique_ptr<TrainedSeries>(new TrainedSeries(net, std::move(fitted.places), lo, hi));
}

template <class T>
void TrainedSeries::gradient(const T* da, const std::vector<EmbeddingGradient<double>>& g) const {
  constexpr int K = series_terms<T>, panel = padded<double>(1);
  const Kernels<double>& k = kernels<double>();
  const Nodes nodes(K);
  const int m = nodes.count(), channels = net_.layers[net_.nlayers - 1].out, nc = padded<double>(channels), tnc = padded<T>(channels);
  const int threads = static_cast<int>(g.size());
  parallel(threads, [&](int t) {
    Arena arena;
    for (std::size_t i = static_cast<std::size_t>(t); i < places_.size(); i += static_cast<std::size_t>(threads)) {
      const SeriesPlace& p = places_[i];
      const T* from = da + i * static_cast<std::size_t>(K) * static_cast<std::size_t>(tnc);
      if (std::all_of(from, from + static_cast<std::ptrdiff_t>(K) * tnc, [](T x) { return x == T(0); })) continue;
      double* s = arena.take<double>(m);
      int* combination = arena.take<int>(m);
      double* coefficients = arena.take<double>(static_cast<long>(K) * nc);
      double* values = arena.take<double>(static_cast<long>(m) * nc);
      double* dy = arena.take<double>(static_cast<long>(channels) * m);
      nodes.place(s, p, lo_, hi_);
      for (int r = 0; r < K; ++r)
        for (int c = 0; c < nc; ++c) coefficients[r * nc + c] = c < channels ? static_cast<double>(from[r * tnc + c]) : 0.0;
      const bool two = p.other != p.curve;
      k.linear(m, nc, K, values, nc, nodes.matrix(), 1, m, coefficients, nc, panel, nullptr, false);
      transpose(m, channels, dy, m, values, nc, two ? 0.5 : 1.0, false);
      for (const int curve : {p.curve, p.other}) {
        EmbeddingTape<double> tape;
        std::fill_n(combination, m, curve);
        k.embedding_layout(net_, m, true, arena, tape);
        k.embedding(net_, m, tape, true, s, combination);
        k.embedding_backward(net_, m, nullptr, &g[static_cast<std::size_t>(t)], dy, tape, s, combination, arena);
        if (!two) break;
      }
      arena.reset();
    }
  });
}

#define DPA2_INSTANTIATE_FOR(T)                                                                                                           \
  template std::unique_ptr<TrainedSeries> TrainedSeries::build(Storage&, SeriesTable<T>&, const EmbeddingNet<double>&, SeriesStart&, int, \
                                                               double, double, int, int);                                                 \
  template void TrainedSeries::gradient(const T*, const std::vector<EmbeddingGradient<double>>&) const;
DPA2_INSTANTIATE_FOR(double)
DPA2_INSTANTIATE_FOR(float)

}  // namespace dpa2
