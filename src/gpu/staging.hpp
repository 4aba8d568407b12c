// Pinned memory of the host that goes to the device or comes from it, used in turns: a piece is filled again when its copy is over.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <optional>

#include "gpu/device.hpp"

namespace dpa2::gpu {

class Staging {
 public:
  explicit Staging(std::shared_ptr<const Device> device) : device_(std::move(device)) {}

  struct Slot {
    std::optional<Pinned> memory;
    std::optional<Event> copied;  ///< record it after the copy
  };

  /// At least `bytes` that no copy uses any more; waits for the oldest copy where all are under way.
  Slot& next(std::size_t bytes) {
    Slot& slot = slots_[turn_ = (turn_ + 1) % slots_.size()];
    if (!slot.copied) slot.copied.emplace(device_);
    slot.copied->wait();
    if (!slot.memory || slot.memory->bytes() < bytes) {
      slot.memory.reset();
      slot.memory.emplace(device_, bytes + bytes / 8);
    }
    return slot;
  }

 private:
  std::shared_ptr<const Device> device_;
  std::array<Slot, 3> slots_;
  std::size_t turn_ = 0;
};

}  // namespace dpa2::gpu
