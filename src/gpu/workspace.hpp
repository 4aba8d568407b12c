// The memory of an engine that grows: the slab of its plans, and what goes in and out.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "gpu/device.hpp"
#include "gpu/engine.hpp"
#include "gpu/plan.hpp"

namespace dpa2::gpu {

/// Buffers that all programs of an engine share: they run one after the other. Nothing is allocated or let go of by the engine's lock
/// holder: memory may come from Python.
class Workspace {
 public:
  enum Part { input, output, slab, parts };

  /// Sizes of the pieces of each part: one piece, or many where every buffer is an allocation of its own.
  using Sizes = std::array<std::vector<std::size_t>, parts>;
  using Pieces = std::array<std::vector<Memory>, parts>;

  static Sizes sizes(std::size_t input_bytes, std::size_t output_bytes, const Plan& plan);

  [[nodiscard]] bool fits(const Sizes& wanted) const;
  /// What is missing for `wanted`; parts that fit are empty.
  [[nodiscard]] Sizes missing(const Sizes& wanted) const;
  /// Memory of these sizes. Throws out_of_memory.
  static Pieces allocated(const Sizes& sizes, const std::shared_ptr<const Device>& device, const Hooks& hooks);
  /// `pieces` of these sizes take the place of parts that do not fit. They get the old memory, which nothing uses any more.
  void replace(Pieces& pieces, const Sizes& sizes);
  /// Everything; nothing is left.
  [[nodiscard]] Workspace taken();

  [[nodiscard]] void* at(Part part) const { return pieces_[part].empty() ? nullptr : pieces_[part].front().at; }
  /// Of the pieces of a plan that fits.
  [[nodiscard]] std::vector<void*> places(const Plan& plan) const;
  /// Changes whenever addresses do.
  [[nodiscard]] std::uint64_t generation() const noexcept { return generation_; }
  [[nodiscard]] std::size_t bytes() const noexcept;

 private:
  [[nodiscard]] bool fits(const Sizes& wanted, std::size_t part) const;

  Sizes sizes_;
  Pieces pieces_;
  std::uint64_t generation_ = 0;
};

}  // namespace dpa2::gpu
