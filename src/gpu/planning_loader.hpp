// The Loader of nothing: for plans of evaluations where there is no device.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "gpu/constants_room.hpp"
#include "gpu/driver.hpp"
#include "gpu/loader.hpp"

namespace dpa2::gpu {

/// Compiles and uploads nothing; what it gives is not null, and not to be used. `real`: as for DeviceLoader.
class PlanningLoader final : public Loader {
 public:
  explicit PlanningLoader(std::string real) : real_(std::move(real)) {}

  Function function(const char* source, const char* name, const Defines& defines) override {
    kernels_.push_back({source, name, with_precision(defines, real_)});
    return {pointer(ConstantsRoom::alignment), name};
  }
  [[nodiscard]] int max_shared() const override { return 48 * 1024; }
  [[nodiscard]] int multiprocessors() const override { return 132; }

  /// Bytes of the device that constants would take.
  [[nodiscard]] std::int64_t bytes() const { return static_cast<std::int64_t>(room_.bytes()); }
  /// Everything that was asked for; some several times.
  [[nodiscard]] const std::vector<NeededKernel>& kernels() const { return kernels_; }

 protected:
  const void* upload_bytes(const void*, std::size_t bytes) override {
    static_cast<void>(room_.take(bytes));
    return pointer(ConstantsRoom::alignment);
  }

 private:
  std::string real_;
  std::vector<NeededKernel> kernels_;
  ConstantsRoom room_;
};

}  // namespace dpa2::gpu
