// Tensor cores: used where they are asked for, there, and right.
#pragma once

#include <memory>
#include <string>

#include "gpu/device.hpp"
#include "gpu/loader.hpp"

namespace dpa2::gpu {

struct TensorCores {
  bool used = false;
  std::string warning;  ///< why they are not, although they were asked for: once per process, device and precision
};

/// Whether products may use them: $DPA2_CUDA_TENSOR is 1, the compute capability is 8.0 or later, and a product by them is right, which is
/// tried once per process, device and precision. Throws invalid_input where the variable is neither 0 nor 1. The context must be current.
template <class T>
TensorCores tensor_cores(const std::shared_ptr<const Device>& device, const Hooks& hooks, Loader& loader);

extern template TensorCores tensor_cores<float>(const std::shared_ptr<const Device>& device, const Hooks& hooks, Loader& loader);
extern template TensorCores tensor_cores<double>(const std::shared_ptr<const Device>& device, const Hooks& hooks, Loader& loader);

}  // namespace dpa2::gpu
