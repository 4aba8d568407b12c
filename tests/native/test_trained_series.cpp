// Series of a network whose weights change: their intervals, and the way back to the weights.
#include "graph/series.hpp"
#include "kernels_descriptor.hpp"

namespace {

using namespace operation;
using dpa2::SeriesTable;
using dpa2::TrainedSeries;

/// A table of a network.
template <class T>
struct Trained {
  Trained(const Net& of, int ncurves, int pair_types, double range = 2.0, int threads = 1)
      : net(of), source(net), series(TrainedSeries::build(storage, table, source.net, ncurves, -range, range, pair_types, threads)) {}
  Net net;
  PreparedNet<double> source;
  dpa2::Storage storage;
  SeriesTable<T> table;
  std::unique_ptr<TrainedSeries> series;

  /// Of the interval that has s.
  long interval(double s, int curve) const {
    const int cell = static_cast<int>((s - table.lo) * table.inv_cell);
    return table.interval[curve * table.ncells + cell];
  }
  /// The value of a channel.
  double operator()(double s, int curve, int channel) const {
    constexpr int K = dpa2::series_terms<T>;
    const long n = interval(s, curve);
    const double angle = std::acos((s - table.centre[n]) * table.inv_half[n]);
    double sum = 0;
    for (int k = 0; k < K; ++k) {
      const T a = table.a[(n * K + k) * table.nc + channel];
      CHECK(a == table.at[(n * table.nc + channel) * K + k]);
      sum += static_cast<double>(a) * std::cos(k * angle);
    }
    return sum;
  }
};

constexpr double probes[] = {-1.99, -1.1, -0.3, 0.02, 0.7, 1.4, 1.98};

/// Values of both orders of a pair, or of the curve itself.
double exact(const Net& net, double s, int curve, int pair_types, int channel) {
  const auto of = [&](int c) { return net(s, c)[at(channel)]; };
  return pair_types > 0 ? 0.5 * (of(curve) + of(curve % pair_types * pair_types + curve / pair_types)) : of(curve);
}

template <class T>
void check_values(const Trained<T>& t, int pair_types, const std::string& what) {
  const double tolerance = sizeof(T) == 8 ? 1e-13 : 1e-6;
  CHECK_CASE(t.series != nullptr, what);
  if (!t.series) return;
  const int ncurves = t.net.rows();
  for (int curve = 0; curve < ncurves; ++curve)
    for (const double s : probes)
      for (int c = 0; c < t.net.out(); ++c)
        CHECK_TEXT(std::abs(t(s, curve, c) - exact(t.net, s, curve, pair_types, c)) <= tolerance * 4, what);
}

Net scaled(const Net& net, double factor) {
  Net other = net;
  for (Vector& w : other.w)
    for (double& x : w) x *= factor;
  return other;
}

/// The coefficients are those of build_series, where that has the same intervals.
template <class T>
void test_coefficients(const Net& net, int pair_types, const std::string& what) {
  const Trained<T> trained(net, net.rows(), pair_types);
  check_values(trained, pair_types, what);
  const PreparedNet<double> source(net);
  dpa2::Storage storage;
  SeriesTable<T> table;
  CHECK_CASE(dpa2::build_series(storage, table, source.net, net.rows(), -2.0, 2.0, pair_types), what);
  constexpr int K = dpa2::series_terms<T>;
  int same = 0;
  for (int curve = 0; curve < net.rows(); ++curve)
    for (const double s : probes) {
      const long n = trained.interval(s, curve),
                 m = table.interval[curve * table.ncells + static_cast<int>((s - table.lo) * table.inv_cell)];
      if (trained.table.inv_half[n] != table.inv_half[m]) continue;
      ++same;
      CHECK_CASE(trained.table.centre[n] == table.centre[m], what);
      for (long i = 0; i < static_cast<long>(K) * table.nc; ++i)
        CHECK_NEAR(trained.table.a[n * K * table.nc + i], table.a[m * K * table.nc + i], sizeof(T) == 8 ? 2e-15 * 8 : 1e-6);
    }
  CHECK_CASE(same > 0, what);
  CHECK_CASE(trained.table.nc == table.nc && trained.table.lo == table.lo && trained.table.hi == table.hi, what);
}

void test_intervals() {
  Random random(21);
  const Net net(random, {5, 10, 20}, 4, 2, true);
  const Trained<double> first(net, 4, 0);
  check_values(first, 0, "first weights");
  const int n = first.table.nintervals;
  CHECK(first.series->places().size() == at(n));
  const Trained<double> steep(scaled(net, 4.0), 4, 0);
  check_values(steep, 0, "steep weights");
  CHECK(steep.table.nintervals > n);
  const Trained<double> threads(net, 4, 0, 2.0, 3);
  CHECK(threads.table.nintervals == n);
  for (long i = 0; i < static_cast<long>(n) * dpa2::series_terms<double> * threads.table.nc; ++i)
    CHECK(threads.table.a[i] == first.table.a[i]);
}

void test_none() {
  Random random(22);
  const auto none = [](const Net& net, int ncurves, double range, const std::string& what) {
    CHECK_CASE(Trained<double>(net, ncurves, 0, range).series == nullptr, what);
  };
  none(Net(random, {5, 10}, 1, 0, false, dpa2::Activation::relu), 1, 2.0, "kinks");
  Net step(random, {4}, 1, 0, false);  // narrower than the smallest interval
  for (int c = 0; c < 4; ++c) step.b[0][at(c)] = -0.3e6 * step.w[0][at(c)];
  none(step, 1, 1e6, "too many levels");
  none(Net(random, {2}, 257, 1, false), 257, 2.0, "too many curves");
  none(scaled(Net(random, {64, 1024}, 200, 1, false), 20.0), 200, 2.0, "too large");
  none(Net(random, {1500, 1500, 2}, 250, 1, false), 250, 2.0, "too much work");
  none(Net(random, {3}, 1, 0, false), 1, 0.0, "no range");
  none(Net(random, {3}, 1, 0, false), 1, INFINITY, "an endless range");
  Net bad(random, {3}, 1, 0, false);
  bad.w[0][1] = NAN;
  none(bad, 1, 2.0, "a weight that is no number");
}

/// <da, da/dw u> for the coefficients that the network has at the nodes, by the complex step through the reference.
template <class T>
void test_adjoint(const Net& net, int pair_types, int threads, const std::string& what) {
  constexpr int K = dpa2::series_terms<T>;
  const Trained<T> t(net, net.rows(), pair_types);
  CHECK_CASE(t.series != nullptr, what);
  if (!t.series) return;
  Random random(23);
  const int nc = t.table.nc, nodes = 2 * K, out = net.out();
  Guarded<T> da(random.vector(static_cast<long>(t.table.nintervals) * K * nc));
  std::vector<std::unique_ptr<NetGradient<double>>> parts;
  std::vector<dpa2::EmbeddingGradient<double>> g;
  for (int k = 0; k < threads; ++k) {
    parts.push_back(std::make_unique<NetGradient<double>>(net));
    g.push_back(parts.back()->g);
  }
  t.series->template gradient<T>(da, g);
  Blocks found = parts[0]->blocks();
  for (int k = 1; k < threads; ++k) {
    const Blocks more = parts[at(k)]->blocks();
    for (std::size_t b = 0; b < found.size(); ++b)
      for (std::size_t i = 0; i < found[b].size(); ++i) found[b][i] += more[b][i];
  }

  const Blocks folded = net.folded();
  for (std::size_t b = 0; b < folded.size(); ++b) {
    if (folded[b].empty()) continue;
    Blocks u;
    for (const Vector& block : folded) u.emplace_back(block.size(), 0.0);
    u[b] = random.vector(static_cast<long>(folded[b].size()));
    const Values<Complex> w = stepped(folded, u);
    double sum = 0, size = 0;
    for (const dpa2::SeriesPlace& p : t.series->places()) {
      const double half = 2.0 / (1 << p.level), centre = -2.0 + half * (2 * p.index + 1);
      const long n = t.interval(centre, p.curve);
      for (int j = 0; j < nodes; ++j) {
        const double x = std::cos(std::acos(-1.0) * (j + 0.5) / nodes);
        const std::vector<Complex> y = net(Complex(centre + half * x), p.curve, w), z = net(Complex(centre + half * x), p.other, w);
        for (int k = 0; k < K; ++k)
          for (int c = 0; c < out; ++c) {
            const double da_dy = std::cos(k * std::acos(x)) * (k == 0 ? 1.0 : 2.0) / nodes;
            const double term = da_dy * 0.5 * (y[at(c)] + z[at(c)]).imag() / tiny * static_cast<double>(da((n * K + k) * nc + c));
            sum += term;
            size += std::abs(term);
          }
      }
    }
    const double product = dot({found[b]}, {u[b]});
    CHECK_TEXT(std::abs(product - sum) <= 1e-12 * std::max(size, 1e-3),
               what + ", block " + std::to_string(b) + ": " + std::to_string(product) + " for " + std::to_string(sum));
  }
}

template <class T>
void test(const std::string& precision) {
  Random random(20);
  int variant = 0;
  for (const std::vector<int>& widths : network_widths)
    for (const dpa2::Activation kind : {dpa2::Activation::tanh, dpa2::Activation::gelu})
      for (const int mode : {0, 1, 2}) {  // one curve, four of them, pairs of two types
        const Net net(random, widths, 4, mode > 0 ? 2 : 0, ++variant % 2 == 0, kind);
        const std::string what = "network " + std::to_string(variant) + " in " + precision;
        test_coefficients<T>(net, mode == 2 ? 2 : 0, what);
        test_adjoint<T>(net, mode == 2 ? 2 : 0, 1 + variant % 2, what);
      }
}

}  // namespace

int main() {
  test<double>("float64");
  test<float>("float32");
  test_intervals();
  test_none();
  return check::finish();
}
