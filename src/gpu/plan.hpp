// Where the buffers of an evaluation lie in one slab, so that buffers that are not in use together share memory.
#pragma once

#include <cstddef>
#include <limits>
#include <string>
#include <vector>

namespace dpa2::gpu {

/// Made by one pass of `take` and `release` (queue.hpp) and `place`, then followed by others that make the same calls.
class Plan {
 public:
  static constexpr std::size_t alignment = 256;  ///< of a buffer: what an allocation of the driver has

  struct Piece {
    std::string name;
    std::size_t bytes = 0;                                      ///< as asked for
    std::size_t offset = 0;                                     ///< in the slab
    int taken = 0, released = std::numeric_limits<int>::max();  ///< numbers of these calls among all

    [[nodiscard]] bool lives_with(const Piece& o) const noexcept { return taken < o.released && o.taken < released; }
  };

  /// The number of the new piece.
  std::size_t take(const char* name, std::size_t bytes);
  void release(std::size_t piece);
  /// Gives every piece its place, now that it is known how long each lives: the best of some orders.
  void place();

  [[nodiscard]] const std::vector<Piece>& pieces() const noexcept { return pieces_; }
  /// Of the slab.
  [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }
  /// The pieces that are in use together where these take most, in the order of `take`.
  [[nodiscard]] std::vector<std::size_t> peak() const;
  /// What a piece takes: there is always a place to point to.
  static std::size_t padded(std::size_t bytes) { return bytes == 0 ? alignment : (bytes + alignment - 1) / alignment * alignment; }

 private:
  /// Each in the lowest gap that is wide enough.
  void place_in(const std::vector<std::size_t>& order);

  std::vector<Piece> pieces_;
  int calls_ = 0;
  std::size_t bytes_ = 0;
};

}  // namespace dpa2::gpu
