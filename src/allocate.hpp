// Where the memory of long arrays comes from.
#pragma once

#include <cstddef>
#include <cstdlib>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "padding.hpp"

namespace dpa2 {

inline constexpr std::size_t huge_page = std::size_t{1} << 21;

/// Uninitialised memory for std::free, aligned to pad_bytes; null where there is none. What would fill huge pages asks for them:
/// the TLB reaches further, and an array that lies together in memory lies together in the second cache as well.
inline void* allocate(std::size_t bytes) noexcept {
  if (bytes < huge_page) return std::aligned_alloc(pad_bytes, padded_bytes(bytes));
  const std::size_t size = (bytes + huge_page - 1) / huge_page * huge_page;
  void* p = std::aligned_alloc(huge_page, size);
#if defined(MADV_HUGEPAGE)
  if (p != nullptr) static_cast<void>(madvise(p, size, MADV_HUGEPAGE));  // advice: small pages do as well
#endif
  return p;
}

}  // namespace dpa2
