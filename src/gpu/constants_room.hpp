// How constants share slabs of the device's memory.
#pragma once

#include <algorithm>
#include <cstddef>

namespace dpa2::gpu {

class ConstantsRoom {
 public:
  static constexpr std::size_t slab_bytes = std::size_t{4} << 20, alignment = 256;

  /// Of a piece of that many bytes.
  struct Place {
    std::size_t new_slab = 0;  ///< bytes of the slab that has to be made for it; 0: it goes into the last one
    std::size_t offset = 0;
  };
  /// `alone`: in a slab of its own.
  Place take(std::size_t bytes, bool alone = false) {
    Place place;
    if (alone || room_ - used_ < bytes) {
      place.new_slab = room_ = alone ? bytes : std::max(bytes, slab_bytes);
      used_ = 0;
      all_ += room_;
    }
    place.offset = used_;
    used_ = std::min(room_, (used_ + bytes + alignment - 1) / alignment * alignment);
    return place;
  }
  /// Of all slabs.
  [[nodiscard]] std::size_t bytes() const noexcept { return all_; }

 private:
  std::size_t used_ = 0, room_ = 0;  // of the last slab
  std::size_t all_ = 0;
};

}  // namespace dpa2::gpu
