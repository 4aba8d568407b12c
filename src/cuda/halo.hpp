// Arguments of the kernels between the rows of a part of a system and packed rows of its exchange: shared by host and kernels.
#pragma once

namespace dpa2 {
namespace cuda {

constexpr int halo_threads = 128;  ///< a warp per row

/// out[k] = rows[index[k]]
template <class T>
struct PackArgs {
  T* out;            // (count, width)
  const T* rows;     // (atoms, width)
  const int* index;  // (count)
  int count;
  int width;
};
static_assert(sizeof(PackArgs<float>) == 32 && sizeof(PackArgs<double>) == 32, "fixed-width");

/// Rows of ghosts = those that were received, and those of their owners.
template <class T>
struct UnpackArgs {
  T* rows;             // (atoms, width)
  const T* in;         // (received, width)
  const int* receive;  // (received) rows
  const int* images;   // (images) rows
  const int* owners;   // (images) rows
  int received;
  int count;  // received + images
  int width;
  int unused;
};
static_assert(sizeof(UnpackArgs<float>) == 56 && sizeof(UnpackArgs<double>) == 56, "fixed-width");

/// Rows of atoms += what was received for them, and those of their images.
template <class T>
struct CollectArgs {
  T* rows;             // (atoms, width)
  const T* in;         // (received, width)
  const int* atoms;    // (count) rows
  const int* begin;    // (count + 1)
  const int* sources;  // what atoms[k] gets is sources[begin[k]..begin[k + 1]]: a received row, or ~row
  int count;
  int width;
};
static_assert(sizeof(CollectArgs<float>) == 48 && sizeof(CollectArgs<double>) == 48, "fixed-width");

}  // namespace cuda
}  // namespace dpa2
