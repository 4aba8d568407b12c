// Embedding networks as series: built when a model is prepared, for the CPU or a GPU, exact to rounding or not at all (theory S6).
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "cpu/embedding_net.hpp"
#include "cpu/tabulate.hpp"
#include "fold/folded.hpp"
#include "graph/packing.hpp"
#include "schema/config.hpp"

namespace dpa2 {

/// When a table would be large or take long: then the network stays in use.
inline constexpr int series_max_level = 12;  ///< at most 4096 cells over the range
inline constexpr int series_max_curves = 256;
inline constexpr std::size_t series_max_bytes = std::size_t{64} << 20;
inline constexpr double series_max_work = 2e10;  ///< multiplications: a few seconds; published models take a thousandth of it
/// The largest term that is left out, of the largest value.
template <class T>
inline constexpr double series_tolerance = 4e-15;
template <>
inline constexpr double series_tolerance<float> = 1e-9;

/// One interval of a curve, `level` halvings of the range down. It stands for the mean of two curves, which may be the same.
struct SeriesPlace {
  int level = 0, index = 0, curve = 0, other = 0;
};
struct SeriesInterval {
  SeriesPlace place;
  double centre, half;
  std::vector<double> a;  ///< the coefficients (K or more, channels)
};
/// The curve that a pair of types shares its intervals with: that of its other order. Without types of pairs itself.
inline int other_order(int curve, int pair_types) { return pair_types > 0 ? curve % pair_types * pair_types + curve / pair_types : curve; }
/// What an interval takes.
template <class T>
std::size_t series_bytes(int channels) {
  return 2 * sizeof(T) * static_cast<std::size_t>(series_terms<T>) * static_cast<std::size_t>(padded<T>(channels));
}

/// Replaces `net` on [lo, hi) by one curve per row of its type tables (one curve where it is not typed). Intervals are halved
/// until the next terms of the series are below rounding (double: 4e-15 of the largest value, float: 1e-9). False when that
/// is not reached, as for activations with kinks, or when the table would be large: then the network stays in use. With
/// `pair_types`, the curve of a pair of types a*pair_types + b is the mean of its two orders.
template <class T>
bool build_series(Storage& storage, SeriesTable<T>& table, const EmbeddingNet<double>& net, int ncurves, double lo, double hi,
                  int pair_types = 0);

/// The same with a network for every curve, none of them typed and all of one width.
template <class T>
bool build_series(Storage& storage, SeriesTable<T>& table, const std::vector<EmbeddingNet<double>>& nets, double lo, double hi);

/// The table of intervals whose coefficients have rows of `ld`.
template <class T>
void write_series(Storage& storage, SeriesTable<T>& table, const std::vector<SeriesInterval>& intervals, int channels, int ld, int ncurves,
                  double lo, double hi);

/// The same as plain numbers, for kernels that are not the CPU's; none where that is false.
template <class T>
std::optional<FoldedSeries> fit_series(const EmbeddingNet<double>& net, int ncurves, double lo, double hi, int pair_types = 0);

/// The environment variable DPA2_SERIES=off keeps the networks, to compare the two.
bool series_wanted();

/// The networks of the first blocks with their series, as the kernels of this precision on the CPU have them; without, where those use
/// the networks themselves.
template <class T>
void add_series(const Config& config, FoldedDescriptor& folded);

}  // namespace dpa2
