// The unit of every layout: what all levels of instruction sets and both precisions pad to.
#pragma once

#include <cstddef>

#include "number.hpp"

namespace dpa2 {

/// A line of the cache, and the longest vector: channels and lanes are padded to it, and arrays begin on it. The layout of data
/// does not depend on the instruction set.
inline constexpr std::size_t pad_bytes = 64;

/// `bytes` rounded up to whole lines. Kernels of every level call this, so that it is always inlined.
inline __attribute__((always_inline)) constexpr std::size_t padded_bytes(std::size_t bytes) {
  return (bytes + pad_bytes - 1) / pad_bytes * pad_bytes;
}

/// n numbers of type T, rounded up likewise; of dual numbers as many as of plain ones, which their weights are.
template <class T>
inline __attribute__((always_inline)) constexpr int padded(int n) {
  constexpr int unit = static_cast<int>(pad_bytes / sizeof(Real<T>));
  return (n + unit - 1) / unit * unit;
}

}  // namespace dpa2
