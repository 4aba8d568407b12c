#include "gpu/series.hpp"

#include <vector>

namespace dpa2::gpu {

namespace {

/// (rows, columns) as rows of `width` numbers, with zeros.
std::vector<double> padded(const double* from, std::size_t rows, std::size_t columns, std::size_t width) {
  std::vector<double> out(rows * width, 0.0);
  for (std::size_t r = 0; r < rows; ++r) std::copy_n(from + r * columns, columns, out.begin() + static_cast<std::ptrdiff_t>(r * width));
  return out;
}

}  // namespace

template <class T>
std::optional<cuda::SeriesArgs<T>> upload_series(const FoldedEmbeddingNet& net, const Matrix& gate, bool gate_switch, Loader& loader) {
  if (!net.series) return std::nullopt;
  const FoldedSeries& series = *net.series;
  const int nc = (series.channels + cuda::series_channels - 1) / cuda::series_channels * cuda::series_channels;
  const std::size_t channels = static_cast<std::size_t>(series.channels), width = static_cast<std::size_t>(nc);
  const std::size_t terms = static_cast<std::size_t>(series.terms), intervals = static_cast<std::size_t>(series.intervals);
  const std::vector<double> a = padded(series.coefficients.data(), intervals * terms, channels, width);
  std::vector<double> at(a.size()), place;
  for (std::size_t i = 0; i < intervals; ++i) {
    for (std::size_t k = 0; k < terms; ++k)
      for (std::size_t c = 0; c < width; ++c) at[(i * width + c) * terms + k] = a[(i * terms + k) * width + c];
    const double centre = series.centre[i], rounded = static_cast<double>(static_cast<T>(centre));
    place.insert(place.end(), {rounded, centre - rounded, 1.0 / series.half[i], 0.0});
  }
  cuda::SeriesArgs<T> out{};
  out.interval = loader.uploaded(series.interval);
  out.place = loader.upload<T>(place);
  out.a = loader.upload<T>(a);
  out.at = loader.upload<T>(at);
  if (!gate.empty())
    out.gate = loader.upload<T>(padded(gate.a.data(), static_cast<std::size_t>(gate.rows), static_cast<std::size_t>(gate.cols), width));
  out.lo = static_cast<T>(series.lo);
  out.hi = static_cast<T>(series.hi);
  out.inv_cell = static_cast<T>(series.cells / (series.hi - series.lo));
  out.cells = series.cells;
  out.intervals = series.intervals;
  out.nc = nc;
  out.typed = net.typed ? 1 : 0;
  out.gate_switch = gate_switch ? 1 : 0;
  return out;
}

template std::optional<cuda::SeriesArgs<float>> upload_series(const FoldedEmbeddingNet&, const Matrix&, bool, Loader&);
template std::optional<cuda::SeriesArgs<double>> upload_series(const FoldedEmbeddingNet&, const Matrix&, bool, Loader&);

}  // namespace dpa2::gpu
