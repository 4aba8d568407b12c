// Threads: fixed ranges of centres, and sums over threads without atomics.
#pragma once

#include <cstdint>
#include <exception>
#include <vector>

#include "model/buffer.hpp"
#include "neighbors/edges.hpp"

namespace dpa2 {

/// Runs f(0) ... f(threads-1), one per thread. The first exception of any thread is thrown again by the caller.
template <class F>
void parallel(int threads, F f) {
  if (threads == 1) {
    f(0);
    return;
  }
  std::vector<std::exception_ptr> errors(static_cast<std::size_t>(threads));
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (int t = 0; t < threads; ++t) {
    try {
      f(t);
    } catch (...) {
      errors[static_cast<std::size_t>(t)] = std::current_exception();
    }
  }
  for (const std::exception_ptr& e : errors)
    if (e) std::rethrow_exception(e);
}

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

  /// out (nall, width) = sum over the threads' buffers (rows(t), width), always in the same order.
  template <class T, class Out>
  void merge(const std::vector<Buffer<T>>& parts, int width, Out* out) const;

 private:
  int nlocal_ = 0, nall_ = 0;
  std::vector<ThreadRange> ranges_;
  Buffer<int> local_;
};

}  // namespace dpa2
