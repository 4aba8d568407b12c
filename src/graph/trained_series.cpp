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

/// a (terms + shown, nc) = the coefficients of an interval; the return value is the largest of those that are left out, over the largest
/// value.
double fit(double* a, int nc, const Nodes& nodes, const EmbeddingNet<double>& net, const SeriesPlace& p, double lo, double hi,
           Arena& arena) {
  const Kernels<double>& k = kernels<double>();
  const Arena::Mark mark = arena.mark();
  const int m = nodes.count(), channels = net.layers[net.nlayers - 1].out, rows = nodes.terms() + Nodes::shown;
  double* s = arena.take<double>(m);
  int* combination = arena.take<int>(m);
  double* values = arena.take<double>(static_cast<long>(m) * nc);
  std::fill_n(values, static_cast<std::ptrdiff_t>(m) * nc, 0.0);
  nodes.place(s, p, lo, hi);
  const bool two = p.other != p.curve;
  for (const int curve : {p.curve, p.other}) {
    const Arena::Mark of_curve = arena.mark();
    EmbeddingTape<double> tape;
    std::fill_n(combination, m, curve);
    k.embedding_layout(net, m, false, arena, tape);
    k.embedding(net, m, tape, false, s, combination);
    transpose(channels, m, values, nc, tape.y[net.nlayers - 1], m, two ? 0.5 : 1.0, true);
    arena.release(of_curve);
    if (!two) break;
  }
  k.linear(rows, nc, m, a, nc, nodes.matrix(), m, 1, values, nc, padded<double>(1), nullptr, false);
  double largest = 1e-300, rest = 0;
  for (long i = 0; i < static_cast<long>(m) * nc; ++i) largest = std::max(largest, std::abs(values[i]));
  for (long i = static_cast<long>(nodes.terms()) * nc; i < static_cast<long>(rows) * nc; ++i) rest = std::max(rest, std::abs(a[i]));
  arena.release(mark);
  return std::isfinite(largest) ? rest / largest : HUGE_VAL;
}

}  // namespace

template <class T>
std::unique_ptr<TrainedSeries> TrainedSeries::build(Storage& storage, SeriesTable<T>& table, const EmbeddingNet<double>& net,
                                                    std::vector<SeriesPlace>& places, int ncurves, double lo, double hi, int pair_types,
                                                    int threads) {
  constexpr int K = series_terms<T>;
  if (!(hi > lo) || !std::isfinite(lo) || !std::isfinite(hi) || ncurves > series_max_curves) return nullptr;
  const Nodes nodes(K);
  const int nc = padded<double>(net.layers[net.nlayers - 1].out);
  const std::size_t size = static_cast<std::size_t>(K + Nodes::shown) * static_cast<std::size_t>(nc);
  if (places.empty())
    for (int curve = 0; curve < ncurves; ++curve) {
      const int other = pair_types > 0 ? curve % pair_types * pair_types + curve / pair_types : curve;
      if (other >= curve) places.push_back({0, 0, curve, other});
    }
  // Round by round: what is not short enough is halved.
  std::vector<SeriesPlace> open = std::move(places), done;
  std::vector<std::vector<double>> coefficients;
  places.clear();
  while (!open.empty()) {
    std::vector<std::vector<double>> a(open.size());
    std::vector<char> good(open.size());
    parallel(threads, [&](int t) {
      Arena arena;
      for (std::size_t i = static_cast<std::size_t>(t); i < open.size(); i += static_cast<std::size_t>(threads)) {
        a[i].resize(size);
        double* aligned = arena.take<double>(static_cast<long>(size));
        good[i] = fit(aligned, nc, nodes, net, open[i], lo, hi, arena) <= series_tolerance<T>;
        std::copy_n(aligned, size, a[i].data());
        arena.reset();
      }
    });
    std::vector<SeriesPlace> next;
    for (std::size_t i = 0; i < open.size(); ++i) {
      const SeriesPlace& p = open[i];
      if (good[i]) {
        done.push_back(p);
        coefficients.push_back(std::move(a[i]));
      } else if (p.level == series_max_level) {
        return nullptr;
      } else {
        next.push_back({p.level + 1, 2 * p.index, p.curve, p.other});
        next.push_back({p.level + 1, 2 * p.index + 1, p.curve, p.other});
      }
    }
    if ((done.size() + next.size()) * size * 2 * sizeof(T) > series_max_bytes) return nullptr;
    open = std::move(next);
  }
  places = done;

  int deepest = 0;
  for (const SeriesPlace& p : done) deepest = std::max(deepest, p.level);
  const int tnc = padded<T>(net.layers[net.nlayers - 1].out);
  const std::size_t per_interval = static_cast<std::size_t>(K) * static_cast<std::size_t>(tnc);
  table.nc = tnc;
  table.nintervals = static_cast<int>(done.size());
  table.ncells = 1 << deepest;
  table.lo = lo;
  table.hi = hi;
  table.inv_cell = table.ncells / (hi - lo);
  int* cells = storage.take<int>(static_cast<std::size_t>(ncurves) * static_cast<std::size_t>(table.ncells));
  double* centre = storage.take<double>(done.size());
  double* inv_half = storage.take<double>(done.size());
  T* to = storage.take<T>(done.size() * per_interval);
  T* transposed = storage.take<T>(done.size() * per_interval);
  for (std::size_t n = 0; n < done.size(); ++n) {
    const SeriesPlace& p = done[n];
    const double half = 0.5 * (hi - lo) / static_cast<double>(1 << p.level);
    centre[n] = lo + half * (2.0 * p.index + 1.0);
    inv_half[n] = 1.0 / half;
    const int count = 1 << (deepest - p.level);
    for (const int curve : {p.curve, p.other})
      std::fill_n(cells + static_cast<std::ptrdiff_t>(curve) * table.ncells + static_cast<std::ptrdiff_t>(p.index) * count, count,
                  static_cast<int>(n));
    for (int k = 0; k < K; ++k)
      for (int c = 0; c < std::min(nc, tnc); ++c) {
        const T v = static_cast<T>(coefficients[n][static_cast<std::size_t>(k * nc + c)]);
        to[n * per_interval + static_cast<std::size_t>(k * tnc + c)] = v;
        transposed[n * per_interval + static_cast<std::size_t>(c * K + k)] = v;
      }
  }
  table.interval = cells;
  table.centre = centre;
  table.inv_half = inv_half;
  table.a = to;
  table.at = transposed;
  return std::unique_ptr<TrainedSeries>(new TrainedSeries(net, done, lo, hi));
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

#define DPA2_INSTANTIATE_FOR(T)                                                                                           \
  template std::unique_ptr<TrainedSeries> TrainedSeries::build(Storage&, SeriesTable<T>&, const EmbeddingNet<double>&,    \
                                                               std::vector<SeriesPlace>&, int, double, double, int, int); \
  template void TrainedSeries::gradient(const T*, const std::vector<EmbeddingGradient<double>>&) const;
DPA2_INSTANTIATE_FOR(double)
DPA2_INSTANTIATE_FOR(float)

}  // namespace dpa2
