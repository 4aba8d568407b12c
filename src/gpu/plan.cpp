#include "gpu/plan.hpp"

#include <algorithm>
#include <limits>
#include <numeric>

#include "error.hpp"

namespace dpa2::gpu {

std::size_t Plan::take(const char* name, std::size_t bytes) {
  Piece piece;
  piece.name = name;
  piece.bytes = bytes;
  piece.taken = calls_++;
  pieces_.push_back(std::move(piece));
  return pieces_.size() - 1;
}

void Plan::release(std::size_t piece) {
  Piece& of = pieces_.at(piece);
  if (of.released <= calls_) throw internal_error("the buffer ", of.name, " is released twice");
  of.released = calls_++;
}

void Plan::place() {
  constexpr int rounds = 32;
  std::vector<std::size_t> by_size(pieces_.size());
  std::iota(by_size.begin(), by_size.end(), std::size_t{0});
  std::stable_sort(by_size.begin(), by_size.end(),
                   [&](std::size_t a, std::size_t b) { return padded(pieces_[a].bytes) > padded(pieces_[b].bytes); });
  // Those of the fullest moment side by side; the others find room between them.
  std::vector<char> full(pieces_.size());
  std::size_t least = 0;
  for (const std::size_t piece : peak()) full[piece] = 1, least += padded(pieces_[piece].bytes);
  std::vector<std::size_t> full_first = by_size;
  std::stable_partition(full_first.begin(), full_first.end(), [&](std::size_t piece) { return full[piece] != 0; });

  std::vector<std::size_t> best;
  std::size_t bytes = std::numeric_limits<std::size_t>::max();
  for (std::vector<std::size_t>* order : {&by_size, &full_first})
    for (int round = 0; round < rounds && bytes > least; ++round) {
      place_in(*order);
      if (bytes_ < bytes) bytes = bytes_, best = *order;
      // What has the highest end found no room below: the next time it goes first.
      const auto end = [&](std::size_t piece) { return pieces_[piece].offset + padded(pieces_[piece].bytes); };
      const auto highest = std::max_element(order->begin(), order->end(), [&](std::size_t a, std::size_t b) { return end(a) < end(b); });
      if (highest != order->end()) std::rotate(order->begin(), highest, highest + 1);
    }
  if (bytes_ != bytes) place_in(best);
}

void Plan::place_in(const std::vector<std::size_t>& order) {
  std::vector<std::size_t> placed;  // in the order of their places
  placed.reserve(order.size());
  bytes_ = 0;
  for (const std::size_t next : order) {
    Piece& piece = pieces_[next];
    const std::size_t size = padded(piece.bytes);
    piece.offset = 0;
    for (const std::size_t before : placed) {
      const Piece& other = pieces_[before];
      if (!piece.lives_with(other)) continue;
      if (other.offset >= piece.offset + size) break;
      piece.offset = std::max(piece.offset, other.offset + padded(other.bytes));
    }
    const auto behind = [&](std::size_t offset, std::size_t other) { return offset < pieces_[other].offset; };
    placed.insert(std::upper_bound(placed.begin(), placed.end(), piece.offset, behind), next);
    bytes_ = std::max(bytes_, piece.offset + size);
  }
}

std::vector<std::size_t> Plan::peak() const {
  std::vector<std::size_t> most, live;
  std::size_t most_bytes = 0;
  for (const Piece& newest : pieces_) {  // there is more only where a piece is taken
    std::size_t bytes = 0;
    live.clear();
    for (std::size_t k = 0; k < pieces_.size(); ++k) {
      const Piece& piece = pieces_[k];
      if (piece.taken > newest.taken || piece.released < newest.taken) continue;
      bytes += padded(piece.bytes);
      live.push_back(k);
    }
    if (bytes <= most_bytes) continue;
    most_bytes = bytes;
    most.swap(live);
  }
  return most;
}

}  // namespace dpa2::gpu
