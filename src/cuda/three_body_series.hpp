// Arguments and sizes of the three-body block with its network as series: shared by host and kernels.
#pragma once

#include "cuda/series.hpp"
#include "cuda/three_body.hpp"

namespace dpa2 {
namespace cuda {

/// The block's columns of D. Without scratch.
template <class T>
struct ThreeBodySeriesArgs {
  ThreeBodyArgs<T> block;  // its network for pairs outside of the range of the series, or of too many kinds
  SeriesArgs<T> series;
  int room;   // neighbours that a warp has room for: no centre has more, padded slots included
  int words;  // of a warp's set of groups
};
static_assert(sizeof(ThreeBodySeriesArgs<float>) == 296 && sizeof(ThreeBodySeriesArgs<double>) == 320, "fixed-width");

/// The gradients of the edge vectors from those columns' gradients.
template <class T>
struct ThreeBodySeriesBackwardArgs {
  ThreeBodyBackwardArgs<T> block;
  SeriesArgs<T> series;
  int room;
  int words;
};
static_assert(sizeof(ThreeBodySeriesBackwardArgs<float>) == 304 && sizeof(ThreeBodySeriesBackwardArgs<double>) == 328, "fixed-width");

/// Groups of pairs, by interval and with a gate by types, whose sums a warp has at a time: more are done in turns.
constexpr int three_body_slots = 32;
/// The set of groups has a bit for each: with more than this many words there are no series.
constexpr int three_body_most_words = 256;
/// Kinds of neighbours that a centre may have with a gate, in the set's size: pairs of others are left to the network.
constexpr int three_body_kinds = 8;
/// Words of a set for this many intervals; too many where it is more than three_body_most_words.
DPA2_MATH constexpr int three_body_words(int intervals, int ntypes, bool gated) {
  const int kinds = !gated ? 1 : ntypes < three_body_kinds ? ntypes : three_body_kinds;
  const long long words = (static_cast<long long>(intervals) * kinds * kinds + 31) / 32;
  const int most = three_body_most_words;
  return words <= most ? static_cast<int>(words) : gated && (intervals + 31) / 32 <= most ? most : most + 1;
}
/// Kinds for which there are enough of them.
DPA2_MATH constexpr int three_body_kinds_of(int intervals, int words) {
  int kinds = three_body_kinds;
  while (kinds > 1 && intervals * kinds * kinds > 32 * words) --kinds;
  return kinds;
}
/// Pairs whose terms a warp has at a time, and numbers from one to the next: vectors of all lanes fall on different banks.
DPA2_MATH constexpr int three_body_part(int bytes_of_scalar) { return bytes_of_scalar == 4 ? 32 : 16; }
DPA2_MATH constexpr int three_body_terms_row(int bytes_of_scalar) { return series_terms(bytes_of_scalar) + 16 / bytes_of_scalar; }
/// Sums of a group that lanes make apart.
DPA2_MATH constexpr int three_body_shares(int bytes_of_scalar) { return 32 / series_terms(bytes_of_scalar); }
/// Numbers from the gradients of a group to those of the next, which are read side by side.
DPA2_MATH constexpr int three_body_group_row(bool gated, int bytes_of_scalar) {
  return (gated ? 2 : 1) * series_terms(bytes_of_scalar) + 1;
}
/// Pairs whose gradients a warp has at a time.
DPA2_MATH constexpr int three_body_band(int room) { return room < 512 ? 512 : room; }
/// Numbers for the sums of groups and terms, or the gradients of groups; or for pairs that are left to the network, of which a scalar
/// takes `each`.
DPA2_MATH constexpr int three_body_series_work(int each, bool backward, bool gated, int bytes_of_scalar) {
  const int kinds = gated ? 2 : 1, terms = series_terms(bytes_of_scalar);
  const int work = backward ? three_body_slots * three_body_group_row(gated, bytes_of_scalar)
                            : three_body_shares(bytes_of_scalar) * kinds * three_body_slots * terms +
                                  three_body_part(bytes_of_scalar) * three_body_terms_row(bytes_of_scalar);
  return work > 96 + each ? work : 96 + each;
}
/// Numbers of a warp, a multiple of four: neighbours and channels, these, and the gradients of neighbours and pairs.
DPA2_MATH constexpr long long three_body_series_numbers(int room, int nc, int each, bool backward, bool gated, int bytes_of_scalar) {
  const long long own = backward ? 4LL * room + (gated ? 2 : 1) * three_body_band(room) : 0;
  return (4LL * room + nc + own + three_body_series_work(each, backward, gated, bytes_of_scalar) + 3) / 4 * 4;
}
/// Whole numbers of a warp: types of neighbours and their kinds, types of kinds, the set and its sums, groups, and slots of pairs.
DPA2_MATH constexpr int three_body_series_integers(int room, int words) {
  return 2 * room + three_body_kinds + 2 * words + three_body_slots + 32;
}
/// Bytes of shared memory of a warp.
DPA2_MATH constexpr long long three_body_series_bytes(int room, int nc, int words, int each, bool backward, bool gated,
                                                      int bytes_of_scalar) {
  return three_body_series_numbers(room, nc, each, backward, gated, bytes_of_scalar) * bytes_of_scalar +
         4LL * three_body_series_integers(room, words);
}

}  // namespace cuda
}  // namespace dpa2
