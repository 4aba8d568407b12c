#include "gpu/device_loader.hpp"

#include <utility>

#include "gpu/nvrtc.hpp"
#include "gpu/tensor.hpp"

namespace dpa2::gpu {

namespace {

constexpr int shared_without_asking = 48 * 1024;
constexpr int tiles_that_matter = 8 * 1024;

}  // namespace

DeviceLoader::DeviceLoader(std::shared_ptr<const Device> device, Hooks hooks, std::string real)
    : device_(std::move(device)), hooks_(std::move(hooks)), real_(std::move(real)), stream_(device_) {
  if (hooks_.function) return;
  auto compiler = std::make_shared<Compiler>(device_);
  hooks_.function = [compiler](const std::string& source, const std::string& name, const Defines& defines) {
    return compiler->function(source, name, defines);
  };
}

Function DeviceLoader::function(const char* source, const char* name, const Defines& defines) {
  const Defines all = with_precision(defines, real_);
  Handle handle = hooks_.function(source, name, all);
  if (handle == nullptr) throw internal_error("no kernel ", name, " of ", source, " was given");
  // More than 48 KiB has to be asked for, and static and dynamic memory count together.
  int fixed = 0;
  check(driver().function_get(&fixed, cu::static_shared, handle), "asking for the shared memory of a kernel");
  if (max_shared() > shared_without_asking) {
    const int status = driver().function_set(handle, cu::max_dynamic_shared, max_shared() - fixed);
    if (status != cu::success) throw driver_error(status, text("allowing kernel ", name, " of ", source, " more shared memory"));
  }
  // A multiprocessor shares one memory out between cache and blocks, by what it guesses; kernels that live in tiles want blocks.
  if (fixed > tiles_that_matter) check(driver().function_set(handle, cu::carveout, 100), "preferring shared memory for a kernel");
  kernels_.push_back({source, name, all});
  return {handle, kernels_.back().name.c_str()};
}

bool DeviceLoader::tensor_cores() {
  if (!tensor_cores_) {
    const TensorCores found =
        real_ == "float" ? gpu::tensor_cores<float>(device_, hooks_, *this) : gpu::tensor_cores<double>(device_, hooks_, *this);
    tensor_cores_ = found.used;
    warning_ = found.warning;
  }
  return *tensor_cores_;
}

const void* DeviceLoader::upload_bytes(const void* data, std::size_t bytes) {
  const ConstantsRoom::Place place = room_.take(bytes, separate_buffers());
  if (place.new_slab > 0) slabs_.push_back(allocate(device_, hooks_, place.new_slab));
  void* at = static_cast<unsigned char*>(slabs_.back().at) + place.offset;
  check(driver().copy_in(address(at), data, bytes, stream_.handle()), "copying constants to the device");
  stream_.wait();  // what reads them is queued on other streams
  return at;
}

}  // namespace dpa2::gpu
