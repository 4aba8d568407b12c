#include "graph/trained_series.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <utility>

#include "cpu/kernels.hpp"
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
  /// s (count): the nodes of an interval
  void place(double* s, double centre, double half) const {
    for (int j = 0; j < nodes_; ++j) s[j] = centre + half * std::cos(pi * (j + 0.5) / nodes_);
  }

 private:
  int terms_, nodes_;
  std::vector<double> to_coefficients_;
};

/// In the range lo to hi.
SeriesInterval interval(const SeriesPlace& p, double lo, double hi) {
  const double half = 0.5 * (hi - lo) / static_cast<double>(1 << p.level);
  return {p, lo + half * (2.0 * p.index + 1.0), half, {}};
}

/// to (columns, rows) = factor * from (rows, ld)^T, or += it
void transpose(int rows, int columns, double* to, long to_ld, const double* from, long ld, double factor, bool add) {
  for (int c = 0; c < columns; ++c)
    for (int r = 0; r < rows; ++r) {
      const double value = factor * from[static_cast<long>(r) * ld + c];
      double& out = to[static_cast<long>(c) * to_ld + r];
      out = add ? out + value : value;
    }
}

/// f(layer, channels) for the layers that values may not show: all before the last one, and those with an idt. The gradients of the next
/// weights, or of the idt, are made of them.
template <class F>
void for_hidden(const EmbeddingNet<double>& net, F f) {
  for (int l = 0; l < net.nlayers; ++l)
    if (l + 1 < net.nlayers || net.layers[l].idt != nullptr) f(l, net.layers[l].out);
}

/// Of all of them side by side, each padded.
int hidden_width(const EmbeddingNet<double>& net) {
  int width = 0;
  for_hidden(net, [&](int, int channels) { width += padded<double>(channels); });
  return width;
}

/// The multiplications of a fit.
double fit_work(const EmbeddingNet<double>& net, const Nodes& nodes, bool two) {
  double node = 0;
  for (int l = 0; l < net.nlayers; ++l) node += static_cast<double>(net.layers[l].in) * net.layers[l].out;
  const double rows = (nodes.terms() + Nodes::shown) * padded<double>(net.layers[net.nlayers - 1].out) + Nodes::shown * hidden_width(net);
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

constexpr double hidden_tolerance = 16;  // as a factor

/// interval.a (terms + shown, nc) = the coefficients. Whether they are enough: the largest of those that are left out is at most
/// `tolerance` of the largest value. Hidden layers are held to that as well: an interval that is good for values alone may be too long for
/// gradients, as where the last layer is zero.
bool fit(SeriesInterval& interval, const Nodes& nodes, const EmbeddingNet<double>& net, double tolerance, Arena& arena) {
  const Kernels<double>& k = kernels<double>();
  const Arena::Mark mark = arena.mark();
  const int m = nodes.count(), K = nodes.terms(), last = net.nlayers - 1, panel = padded<double>(1);
  const int nc = padded<double>(net.layers[last].out), hidden = hidden_width(net), width = nc + hidden;
  double* s = arena.take<double>(m);
  int* combination = arena.take<int>(m);
  double* values = arena.take<double>(static_cast<long>(m) * width);
  double* a = arena.take<double>(static_cast<long>(K + Nodes::shown) * nc);
  double* rest = arena.take<double>(static_cast<long>(Nodes::shown) * hidden);
  std::fill_n(values, static_cast<std::ptrdiff_t>(m) * width, 0.0);
  nodes.place(s, interval.centre, interval.half);
  const SeriesPlace& p = interval.place;
  const bool two = p.other != p.curve;
  const bool idt =
      std::any_of(net.layers, net.layers + net.nlayers, [](const EmbeddingLayer<double>& layer) { return layer.idt != nullptr; });
  for (const int curve : {p.curve, p.other}) {
    const Arena::Mark of_curve = arena.mark();
    EmbeddingTape<double> tape;
    std::fill_n(combination, m, curve);
    k.embedding_layout(net, m, idt, arena, tape);
    k.embedding(net, m, tape, idt, s, combination);
    double* to = values;
    const auto add = [&](const double* y, int channels) {
      transpose(channels, m, to, width, y, m, two ? 0.5 : 1.0, true);
      to += padded<double>(channels);
    };
    add(tape.y[last], net.layers[last].out);
    for_hidden(net, [&](int l, int channels) { add(net.layers[l].idt != nullptr ? tape.phi[l] : tape.y[l], channels); });
    arena.release(of_curve);
    if (!two) break;
  }
  const auto enough = [&](const double* left_out, int ld, const double* of, int channels, double most) {
    const double largest = largest_of(of, m, channels, width);
    return std::isfinite(largest) && largest_of(left_out, Nodes::shown, channels, ld) <= most * largest;
  };
  k.linear(K + Nodes::shown, nc, m, a, nc, nodes.matrix(), m, 1, values, width, panel, nullptr, false);
  bool good = enough(a + static_cast<long>(K) * nc, nc, values, nc, tolerance);
  if (good && hidden > 0) {
    const double* matrix = nodes.matrix() + static_cast<long>(K) * m;
    k.linear(Nodes::shown, hidden, m, rest, hidden, matrix, m, 1, values + nc, width, panel, nullptr, false);
    int at = 0;
    for_hidden(net, [&](int, int channels) {
      good = good && enough(rest + at, hidden, values + nc + at, channels, hidden_tolerance * tolerance);
      at += padded<double>(channels);
    });
  }
  interval.a.assign(a, a + static_cast<std::ptrdiff_t>(K + Nodes::shown) * nc);
  arena.release(mark);
  return good;
}

/// Round by round: where the terms are not enough, an interval is halved. False where that leads too far.
template <class T>
bool halve(std::vector<SeriesInterval>& done, std::vector<SeriesInterval> open, const Nodes& nodes, const EmbeddingNet<double>& net,
           double lo, double hi, bool pairs, int threads) {
  const std::size_t bytes = series_bytes<T>(net.layers[net.nlayers - 1].out);
  double work = 0;
  while (!open.empty()) {
    work += fit_work(net, nodes, pairs) * static_cast<double>(open.size());
    if (work > series_max_work) return false;
    std::vector<char> good(open.size());
    parallel(threads, [&](int t) {
      Arena arena;
      for (std::size_t i = static_cast<std::size_t>(t); i < open.size(); i += static_cast<std::size_t>(threads))
        good[i] = fit(open[i], nodes, net, series_tolerance<T>, arena);
    });
    std::vector<SeriesInterval> next;
    for (std::size_t i = 0; i < open.size(); ++i) {
      const auto [level, index, curve, other] = open[i].place;
      if (good[i]) {
        done.push_back(std::move(open[i]));
      } else if (level == series_max_level) {
        return false;
      } else {
        next.push_back(interval({level + 1, 2 * index, curve, other}, lo, hi));
        next.push_back(interval({level + 1, 2 * index + 1, curve, other}, lo, hi));
      }
    }
    if ((done.size() + next.size()) * bytes > series_max_bytes) return false;
    open = std::move(next);
  }
  return true;
}

}  // namespace

template <class T>
std::unique_ptr<TrainedSeries> TrainedSeries::build(Storage& storage, SeriesTable<T>& table, const EmbeddingNet<double>& net, int ncurves,
                                                    double lo, double hi, int pair_types, int threads) {
  if (!(hi > lo) || !std::isfinite(lo) || !std::isfinite(hi) || ncurves > series_max_curves) return nullptr;
  if (net.act.kind == Activation::relu || net.act.kind == Activation::relu6 || net.act.kind == Activation::silut) return nullptr;
  std::vector<SeriesInterval> open, intervals;
  for (int curve = 0; curve < ncurves; ++curve)
    if (other_order(curve, pair_types) >= curve) open.push_back(interval({0, 0, curve, other_order(curve, pair_types)}, lo, hi));
  if (!halve<T>(intervals, std::move(open), Nodes(series_terms<T>), net, lo, hi, pair_types > 0, threads)) return nullptr;
  const int channels = net.layers[net.nlayers - 1].out;
  write_series(storage, table, intervals, channels, padded<double>(channels), ncurves, lo, hi);
  std::vector<SeriesPlace> places;
  for (const SeriesInterval& i : intervals) places.push_back(i.place);
  return std::unique_ptr<TrainedSeries>(new TrainedSeries(net, std::move(places), lo, hi));
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
      const SeriesInterval at = interval(p, lo_, hi_);
      nodes.place(s, at.centre, at.half);
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

#define DPA2_INSTANTIATE_FOR(T)                                                                                                     \
  template std::unique_ptr<TrainedSeries> TrainedSeries::build(Storage&, SeriesTable<T>&, const EmbeddingNet<double>&, int, double, \
                                                               double, int, int);                                                   \
  template void TrainedSeries::gradient(const T*, const std::vector<EmbeddingGradient<double>>&) const;
DPA2_INSTANTIATE_FOR(double)
DPA2_INSTANTIATE_FOR(float)
#undef DPA2_INSTANTIATE_FOR

}  // namespace dpa2
