#include "gpu/workspace.hpp"

#include <algorithm>
#include <numeric>
#include <utility>

namespace dpa2::gpu {

Workspace::Sizes Workspace::sizes(std::size_t input_bytes, std::size_t output_bytes, const Plan& plan) {
  Sizes all{{{input_bytes}, {output_bytes}, {}}};
  if (separate_buffers())
    for (const Plan::Piece& piece : plan.pieces()) all[slab].push_back(piece.bytes);
  else
    all[slab].push_back(plan.bytes());
  return all;
}

bool Workspace::fits(const Sizes& wanted, std::size_t part) const {
  const std::vector<std::size_t>&have = sizes_[part], &want = wanted[part];
  // Buffers of their own are there to show where one ends: each has exactly its size.
  if (part == slab && separate_buffers()) return have == want;
  return have.size() >= want.size() && std::equal(want.begin(), want.end(), have.begin(), std::less_equal<>());
}

bool Workspace::fits(const Sizes& wanted) const { return fits(wanted, input) && fits(wanted, output) && fits(wanted, slab); }

Workspace::Sizes Workspace::missing(const Sizes& wanted) const {
  Sizes sizes = wanted;
  for (std::size_t part = 0; part < parts; ++part)
    if (fits(wanted, part)) sizes[part].clear();
  return sizes;
}

Workspace::Pieces Workspace::allocated(const Sizes& sizes, const std::shared_ptr<const Device>& device, const Hooks& hooks) {
  Pieces pieces;
  for (std::size_t part = 0; part < parts; ++part)
    for (const std::size_t bytes : sizes[part]) pieces[part].push_back(allocate(device, hooks, std::max(bytes, std::size_t{1})));
  return pieces;
}

void Workspace::replace(Pieces& pieces, const Sizes& sizes) {
  for (std::size_t part = 0; part < parts; ++part) {
    // Another thread may have brought more meanwhile.
    if (pieces[part].empty() || fits(sizes, part)) continue;
    pieces_[part].swap(pieces[part]);
    sizes_[part] = sizes[part];
    ++generation_;
  }
}

Workspace Workspace::taken() {
  Workspace all;
  std::swap(all.sizes_, sizes_);
  std::swap(all.pieces_, pieces_);
  ++generation_;
  return all;
}

std::vector<void*> Workspace::places(const Plan& plan) const {
  std::vector<void*> all;
  all.reserve(plan.pieces().size());
  for (const Plan::Piece& piece : plan.pieces())
    all.push_back(separate_buffers() ? pieces_[slab][all.size()].at : static_cast<unsigned char*>(at(slab)) + piece.offset);
  return all;
}

std::size_t Workspace::bytes() const noexcept {
  std::size_t sum = 0;
  for (const std::vector<std::size_t>& part : sizes_) sum = std::accumulate(part.begin(), part.end(), sum);
  return sum;
}

}  // namespace dpa2::gpu
