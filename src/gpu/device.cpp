#include "gpu/device.hpp"

#include <utility>

namespace dpa2::gpu {

namespace {

constexpr int oldest_capability = 75;

int attribute(int device, int which, const char* doing) {
  int value = 0;
  check(driver().device_attribute(&value, which, device), doing);
  return value;
}

}  // namespace

std::shared_ptr<const Device> Device::open(int number) { return std::shared_ptr<const Device>(new Device(number)); }

int device_count() {
  int count = 0;
  check(driver().device_count(&count), "counting devices");
  return count;
}

Device::Device(int number) : number_(number) {
  const Driver& table = driver();
  const int count = device_count();
  if (count == 0) throw invalid_input("this machine has no CUDA device that can be used; load the model with device=\"cpu\"");
  if (number < 0 || number >= count)
    throw invalid_input("there is no CUDA device ", number, ": this machine has ", count == 1 ? "only device 0" : text("0 to ", count - 1),
                        " (CUDA_VISIBLE_DEVICES may hide others)");
  check(table.device_get(&handle_, number), "opening a device");
  char name[256] = "";
  check(table.device_name(name, sizeof name, handle_), "asking for the name of a device");
  name_ = name;
  capability_ = 10 * attribute(handle_, cu::major, "asking for the compute capability") +
                attribute(handle_, cu::minor, "asking for the compute capability");
  max_shared_ = attribute(handle_, cu::shared_optin, "asking for the shared memory of a block");
  multiprocessors_ = attribute(handle_, cu::multiprocessors, "asking for the number of multiprocessors");
  if (capability_ < oldest_capability)
    throw invalid_input("CUDA device ", number, ", ", name_, ", has compute capability ", capability_ / 10, '.', capability_ % 10,
                        ", and the kernels need 7.5 or later (cards since 2018); load the model with device=\"cpu\"");
  check(table.context_retain(&context_, handle_), "making the context of a device");
}

Device::~Device() { driver().context_release(handle_); }

std::size_t Device::free_bytes() const {
  std::size_t free = 0, total = 0;
  check(driver().memory_info(&free, &total), "asking how much memory is free");
  return free;
}

Device::Use::Use(const Device& device) {
  check(driver().context_push(device.context_), "making a device current");
  pushed_ = true;
}

Device::Use::Use(const Device& device, std::nothrow_t) noexcept : pushed_(driver().context_push(device.context_) == cu::success) {}

Device::Use::~Use() {
  Handle popped = nullptr;
  if (pushed_) driver().context_pop(&popped);
}

Stream::Stream(std::shared_ptr<const Device> device) : device_(std::move(device)) {
  const Device::Use use(*device_);
  check(driver().stream_new(&handle_, cu::stream_non_blocking), "making a stream");
}

Stream::~Stream() {
  if (const Device::Use use(*device_, std::nothrow); use) driver().stream_free(handle_);
}

Event::Event(std::shared_ptr<const Device> device) : device_(std::move(device)) {
  const Device::Use use(*device_);
  check(driver().event_new(&handle_, cu::event_without_timing), "making an event");
}

Event::~Event() {
  if (const Device::Use use(*device_, std::nothrow); use) driver().event_free(handle_);
}

bool Event::has_come() const {
  const int status = driver().event_query(handle_);
  if (status != cu::not_ready) check(status, "asking for an event");
  return status == cu::success;
}

Pinned::Pinned(std::shared_ptr<const Device> device, std::size_t bytes) : device_(std::move(device)), bytes_(bytes) {
  const Device::Use use(*device_);
  if (bytes > 0) check(driver().pinned_new(&at_, bytes, cu::host_portable), "allocating pinned memory of the host");
}

Pinned::~Pinned() {
  if (at_ == nullptr) return;
  if (const Device::Use use(*device_, std::nothrow); use) driver().pinned_free(at_);
}

Memory allocate(std::shared_ptr<const Device> device, std::size_t bytes) {
  if (bytes == 0) return {};
  Address at = 0;
  const int status = driver().memory_new(&at, bytes);
  if (status == cu::no_memory) {
    std::size_t free = 0, total = 0;
    driver().memory_info(&free, &total);
    throw out_of_memory("CUDA device ", device->number(), ", ", device->name(), ", has no ", bytes, " bytes of memory left: ", free, " of ",
                        total, " are free");
  }
  check(status, "allocating memory of the device");
  const auto free = [device = std::move(device)](void* p) {
    if (const Device::Use use(*device, std::nothrow); use) driver().memory_free(address(p));
  };
  return {pointer(at), std::shared_ptr<void>(pointer(at), free)};
}

Memory allocate(const std::shared_ptr<const Device>& device, const Hooks& hooks, std::size_t bytes) {
  return hooks.memory && bytes > 0 ? hooks.memory(bytes) : allocate(device, bytes);
}

}  // namespace dpa2::gpu
