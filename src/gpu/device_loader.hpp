// The Loader of a device: kernels by the hooks, constants in slabs.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "gpu/constants_room.hpp"
#include "gpu/device.hpp"
#include "gpu/loader.hpp"

namespace dpa2::gpu {

/// Lives as long as what is made with it. The device's context must be current where it is used. Absent hooks are made here.
class DeviceLoader : public Loader {
 public:
  /// `real`: "float" or "double".
  DeviceLoader(std::shared_ptr<const Device> device, Hooks hooks, std::string real);

  Function function(const char* source, const char* name, const Defines& defines = {}) override;
  [[nodiscard]] bool tensor_cores() override;
  [[nodiscard]] int max_shared() const override { return device_->max_shared(); }
  [[nodiscard]] int multiprocessors() const override { return device_->multiprocessors(); }

  /// What there is to say about the device, or "".
  [[nodiscard]] const std::string& warning() const { return warning_; }
  /// Bytes of the device that constants take.
  [[nodiscard]] std::int64_t bytes() const { return static_cast<std::int64_t>(room_.bytes()); }
  [[nodiscard]] const Hooks& hooks() const { return hooks_; }
  /// Everything that was asked for; some several times.
  [[nodiscard]] std::vector<NeededKernel> kernels() const { return {kernels_.begin(), kernels_.end()}; }

 protected:
  const void* upload_bytes(const void* data, std::size_t bytes) override;

 private:
  std::shared_ptr<const Device> device_;
  Hooks hooks_;
  std::string real_, warning_;
  std::optional<bool> tensor_cores_;  // known when somebody has asked
  Stream stream_;
  std::list<NeededKernel> kernels_;  // whose names stay where they are
  std::vector<Memory> slabs_;
  ConstantsRoom room_;
};

}  // namespace dpa2::gpu
