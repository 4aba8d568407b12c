#include "graph/table.hpp"

#include <array>
#include <cstddef>

namespace dpa2 {

namespace {

using Polynomial = std::array<double, quintic_terms>;

/// Powers of u in [0, 1] to powers of x = 2 u - 1.
Polynomial centred(const Polynomial& c) {
  Polynomial out{};
  for (std::size_t j = 0; j < c.size(); ++j) {
    double term = c[j];
    for (std::size_t k = 0; k < j; ++k) term *= 0.5;
    for (std::size_t k = 0; k <= j; ++k) {
      out[k] += term;  // term = c_j binomial(j, k) / 2^j
      term *= static_cast<double>(j - k) / static_cast<double>(k + 1);
    }
  }
  return out;
}

/// The line through the value at u = 0 or 1 with the slope there, in powers of u - u0 in half intervals.
Polynomial line(const Polynomial& c, bool at_end) {
  Polynomial out{};
  if (!at_end) {
    out[0] = c[0];
    out[1] = 0.5 * c[1];
    return out;
  }
  for (std::size_t k = 0; k < c.size(); ++k) {
    out[0] += c[k];
    out[1] += 0.5 * static_cast<double>(k) * c[k];
  }
  return out;
}

}  // namespace

template <class T>
void build_quintic(Storage& storage, QuinticTable<T>& table, const TableConfig& config, const Tensor& weight) {
  const std::size_t ncurves = static_cast<std::size_t>(weight.shape[0]), n = static_cast<std::size_t>(weight.shape[1]);
  const std::size_t channels = static_cast<std::size_t>(weight.shape[3]);
  const std::size_t nc = static_cast<std::size_t>(padded<T>(static_cast<int>(channels))), rows = n + 2;
  int* cells = storage.take<int>(static_cast<std::size_t>(config.cells()));
  double* centre = storage.take<double>(rows);
  double* inv_half = storage.take<double>(rows);
  std::size_t k = 0;
  std::int64_t cell = 0;
  for (const auto& [count, width] : config.segments)
    for (int i = 0; i < count; ++i, ++k) {
      centre[k] = config.lower + config.step * (static_cast<double>(cell) + 0.5 * width);
      inv_half[k] = 2.0 / (config.step * width);
      for (int w = 0; w < width; ++w) cells[cell++] = static_cast<int>(k);
    }
  table.nc = static_cast<int>(nc);
  table.nintervals = static_cast<int>(n);
  table.ncells = static_cast<int>(cell);
  table.lo = config.lower;
  table.hi = config.lower + config.step * static_cast<double>(cell);
  table.inv_cell = 1.0 / config.step;
  centre[n] = table.lo;
  centre[n + 1] = table.hi;
  inv_half[n] = inv_half[0];
  inv_half[n + 1] = inv_half[n - 1];
  T* a = storage.take<T>(ncurves * rows * quintic_terms * nc);
  const auto put = [&](std::size_t curve, std::size_t row, std::size_t c, const Polynomial& p) {
    for (std::size_t t = 0; t < p.size(); ++t) a[((curve * rows + row) * quintic_terms + t) * nc + c] = static_cast<T>(p[t]);
  };
  for (std::size_t curve = 0; curve < ncurves; ++curve)
    for (std::size_t i = 0; i < n; ++i)
      for (std::size_t c = 0; c < channels; ++c) {
        Polynomial p{};
        for (std::size_t t = 0; t < p.size(); ++t) p[t] = weight.data[((curve * n + i) * quintic_terms + t) * channels + c];
        put(curve, i, c, centred(p));
        if (i == 0) put(curve, n, c, line(p, false));
        if (i == n - 1) put(curve, n + 1, c, line(p, true));
      }
  table.interval = cells;
  table.centre = centre;
  table.inv_half = inv_half;
  table.a = a;
}

template void build_quintic(Storage&, QuinticTable<double>&, const TableConfig&, const Tensor&);
template void build_quintic(Storage&, QuinticTable<float>&, const TableConfig&, const Tensor&);

}  // namespace dpa2
