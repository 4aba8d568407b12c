// Where the buffers of an evaluation lie in one slab, so that buffers that are not in use together share memory.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace dpa2::gpu {

/// Made by one pass of `take` and `release` (queue.hpp), then followed by others that make the same calls.
class Plan {
 public:
  static constexpr std::size_t alignment = 256;  ///< of a buffer: what an allocation of the driver has

  struct Piece {
    std::string name;
    std::size_t bytes = 0;  ///< as asked for
    std::size_t offset = 0;
  };

  /// The number of the new piece. The lowest gap that is wide enough.
  std::size_t take(const char* name, std::size_t bytes);
  void release(std::size_t piece);

  [[nodiscard]] const std::vector<Piece>& pieces() const noexcept { return pieces_; }
  /// Of the slab.
  [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }
  /// What a piece takes: there is always a place to point to.
  static std::size_t padded(std::size_t bytes) { return bytes == 0 ? alignment : (bytes + alignment - 1) / alignment * alignment; }

 private:
  std::vector<Piece> pieces_;
  std::vector<std::size_t> live_;  // in the order of their places
  std::size_t bytes_ = 0;
};

}  // namespace dpa2::gpu
