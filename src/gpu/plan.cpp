#include "gpu/plan.hpp"

#include <algorithm>

#include "error.hpp"

namespace dpa2::gpu {

std::size_t Plan::take(const char* name, std::size_t bytes) {
  std::size_t offset = 0;
  auto before = live_.begin();
  for (; before != live_.end(); ++before) {
    const Piece& other = pieces_[*before];
    if (other.offset - offset >= padded(bytes)) break;
    offset = other.offset + padded(other.bytes);
  }
  live_.insert(before, pieces_.size());
  pieces_.push_back({name, bytes, offset});
  bytes_ = std::max(bytes_, offset + padded(bytes));
  return pieces_.size() - 1;
}

void Plan::release(std::size_t piece) {
  const auto at = std::find(live_.begin(), live_.end(), piece);
  if (at == live_.end()) throw internal_error("the buffer ", pieces_.at(piece).name, " is released twice");
  live_.erase(at);
}

}  // namespace dpa2::gpu
