// Scratch memory of one thread: a stack of aligned blocks that grows when it has to and keeps what it has.
#pragma once

#include <cstddef>

#include "padding.hpp"

namespace dpa2 {

/// Kernels take their temporaries from here and release them in reverse order. What is inline is always inlined, because the
/// class is shared by code of all ISA levels; growing is compiled without ISA flags (arena.cpp).
class Arena {
 public:
  struct Mark {
    int chunk;
    std::size_t used;
  };

  Arena() = default;
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  ~Arena();

  /// Uninitialised, aligned to pad_bytes. Throws std::bad_alloc.
  template <class T>
  inline __attribute__((always_inline)) T* take(long n) {
    const std::size_t size = padded_bytes(static_cast<std::size_t>(n > 0 ? n : 0) * sizeof(T));
    if (used_ + size > bytes_) next_chunk(size);
    char* p = base_ + used_;
    used_ += size;
    return reinterpret_cast<T*>(p);
  }
  inline __attribute__((always_inline)) Mark mark() const { return {chunk_, used_}; }
  inline __attribute__((always_inline)) void release(Mark mark) {
    if (mark.chunk != chunk_) select(mark.chunk);
    used_ = mark.used;
  }

  /// Releases everything; memory that had to grow in pieces becomes one piece, so that the next step finds it contiguous.
  void reset();
  /// Bytes held.
  std::size_t capacity() const;

 private:
  static constexpr int max_chunks = 64;
  struct Chunk {
    char* base;
    std::size_t bytes;
  };
  void next_chunk(std::size_t size);
  void select(int chunk);

  char* base_ = nullptr;
  std::size_t bytes_ = 0, used_ = 0;
  int chunk_ = -1, nchunks_ = 0;
  Chunk chunks_[max_chunks] = {};
};

}  // namespace dpa2
