// Fixed ranges of centres for the threads, and sums over threads without atomics.
#pragma once

#include <cstdint>
#include <vector>

#include "graph/buffer.hpp"
#include "neighbors/edges.hpp"
#include "threads.hpp"

namespace dpa2 {

/// The centres of one thread and the rows outside of them that its edges touch. A thread adds to rows of its own buffer: row
/// i - begin for its centres, then one row per entry of `halo`. `local` gives that row for every edge.
struct ThreadRange {
  int begin = 0, end = 0;
  std::vector<int> halo;  ///< ascending
  int rows() const noexcept { return end - begin + static_cast<int>(halo.size()); }
};

class Partition {
 public:
  /// Splits the centres into `threads` ranges of about equal work and finds their halos.
  void build(const Edges& edges, int threads);
  int threads() const noexcept { return static_cast<int>(ranges_.size()); }
  const ThreadRange& range(int t) const noexcept { return ranges_[static_cast<std::size_t>(t)]; }
  /// (nedge): the row of the neighbour in the buffer of the thread that owns the centre.
  const int* local() const noexcept { return local_.data(); }

  /// out (nall, width), whose rows are `stride` apart, = sum over the threads' buffers (rows(t), width), always in the same order.
  template <class T, class Out>
  void merge(const std::vector<Buffer<T>>& parts, int width, Out* out, int stride) const;

 private:
  int nlocal_ = 0, nall_ = 0;
  std::vector<ThreadRange> ranges_;
  Buffer<int> local_;
  std::vector<Buffer<int>> slot_;  ///< per thread (nall): scratch of build
};

}  // namespace dpa2
