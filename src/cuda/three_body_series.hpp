// Arguments and sizes of the three-body block with its network as series: shared by host and kernels.
#pragma once

#include "cuda/env_mat.hpp"
#include "cuda/series.hpp"

namespace dpa2 {
namespace cuda {

/// The block's columns of D, of every centre whose pairs are within the range of the series and of few enough types.
template <class T>
struct ThreeBodySeriesArgs {
  T* D;                     // (centres, d_width) columns offset..offset + n3 =
  int* outside;             // (centres) = 1 for the other centres, of which nothing else is written
  const double* d;          // (master edges, 3)
  const double* r;          // (master edges)
  const int* start;         // (centres + 1) of the block: the first edges of every centre of the master list
  const int* master_start;  // (centres + 1)
  const int* j;             // (master edges)
  const int* types;         // (atoms)
  const int* pad;           // (centres) padded slots
  const int* pad_types;     // (frames)
  const T* pad_v;           // (ntypes, 3) the vector of a padded slot by the type of the centre, or null: they add nothing
  StatisticsArgs<T> statistics;
  SeriesArgs<T> series;
  T inv_nsel_squared;
  int centres;
  int per_frame;  // centres of a frame
  int n3;
  int ntypes;
  int d_width;
  int offset;
  int room;   // neighbours that a warp has room for: no centre has more, padded slots included
  int words;  // of a warp's set of groups
};
static_assert(sizeof(ThreeBodySeriesArgs<float>) == 232 && sizeof(ThreeBodySeriesArgs<double>) == 256, "fixed-width");

/// The gradients of the edge vectors from those columns' gradients, of the centres that the forward has done.
template <class T>
struct ThreeBodySeriesBackwardArgs {
  T* gamma;                 // (master edges, 3) +=
  const int* outside;       // (centres) what the forward has written
  const T* dD;              // (centres, d_width)
  const double* d;          // (master edges, 3)
  const double* r;          // (master edges)
  const int* start;         // (centres + 1) of the block
  const int* master_start;  // (centres + 1)
  const int* j;             // (master edges)
  const int* types;         // (atoms)
  const int* pad;           // (centres)
  const int* pad_types;     // (frames)
  const T* pad_v;           // (ntypes, 3) or null
  StatisticsArgs<T> statistics;
  SeriesArgs<T> series;
  T inv_nsel_squared;
  int centres;
  int per_frame;
  int n3;
  int ntypes;
  int d_width;
  int offset;
  int room;
  int words;
};
static_assert(sizeof(ThreeBodySeriesBackwardArgs<float>) == 240 && sizeof(ThreeBodySeriesBackwardArgs<double>) == 264, "fixed-width");

/// Groups of pairs, by interval and with a gate by types, whose sums a warp has at a time: more are done in turns.
constexpr int three_body_slots = 32;
/// The set of groups has a bit for each: more than this many words and the network is used.
constexpr int three_body_most_words = 256;
/// Kinds of neighbours that a centre may have with a gate, in the set's size.
constexpr int three_body_kinds = 8;
/// Words of a set for this many intervals; too many where it is more than three_body_most_words.
DPA2_MATH constexpr int three_body_words(int intervals, int ntypes, bool gated) {
  const int kinds = !gated ? 1 : ntypes < three_body_kinds ? ntypes : three_body_kinds;
  const long long words = (static_cast<long long>(intervals) * kinds * kinds + 31) / 32;
  const int most = three_body_most_words;
  return words <= most ? static_cast<int>(words) : gated && (intervals + 31) / 32 <= most ? most : most + 1;
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
/// Numbers of a warp, a multiple of four: neighbours and channels; sums of groups and terms, or gradients of neighbours, groups, pairs.
DPA2_MATH constexpr long long three_body_series_numbers(int room, int nc, bool backward, bool gated, int bytes_of_scalar) {
  const int kinds = gated ? 2 : 1, terms = series_terms(bytes_of_scalar);
  const long long own = backward
                            ? 4LL * room + three_body_slots * three_body_group_row(gated, bytes_of_scalar) + kinds * three_body_band(room)
                            : three_body_shares(bytes_of_scalar) * kinds * three_body_slots * terms +
                                  three_body_part(bytes_of_scalar) * three_body_terms_row(bytes_of_scalar);
  return (4LL * room + nc + own + 3) / 4 * 4;
}
/// Whole numbers of a warp: types of neighbours and their kinds, types of kinds, the set and its sums, groups, and slots of pairs.
DPA2_MATH constexpr int three_body_series_integers(int room, int words) {
  return 2 * room + three_body_kinds + 2 * words + three_body_slots + 32;
}
/// Bytes of shared memory of a warp.
DPA2_MATH constexpr long long three_body_series_bytes(int room, int nc, int words, bool backward, bool gated, int bytes_of_scalar) {
  return three_body_series_numbers(room, nc, backward, gated, bytes_of_scalar) * bytes_of_scalar +
         4LL * three_body_series_integers(room, words);
}

}  // namespace cuda
}  // namespace dpa2
