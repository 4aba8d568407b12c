// What the driver gives, owned: a device's primary context, streams, events, memory. Destructors never throw; what they destroy may
// already be gone where a process ends.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "gpu/driver.hpp"
#include "gpu/engine.hpp"

namespace dpa2::gpu {

/// One device and its primary context, which is that of CuPy and torch, too. Everything made on it keeps it.
class Device {
 public:
  /// Throws invalid_input where there is no such device, or it is older than the kernels.
  static std::shared_ptr<const Device> open(int number);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  [[nodiscard]] int number() const { return number_; }
  [[nodiscard]] const std::string& name() const { return name_; }
  /// Compute capability: 75 is 7.5.
  [[nodiscard]] int capability() const { return capability_; }
  /// Bytes of shared memory that a block may have, static and dynamic together.
  [[nodiscard]] int max_shared() const { return max_shared_; }
  [[nodiscard]] int multiprocessors() const { return multiprocessors_; }

  /// Bytes that are free. The context must be current.
  [[nodiscard]] std::size_t free_bytes() const;

  /// The context is current in this thread as long as this lives; then what was before is current again.
  class Use {
   public:
    explicit Use(const Device& device);
    ~Use();
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;

    /// For destructors: what cannot be made current is not.
    Use(const Device& device, std::nothrow_t) noexcept;
    explicit operator bool() const { return pushed_; }

   private:
    bool pushed_ = false;
  };

 private:
  explicit Device(int number);
  int number_, handle_ = 0, capability_ = 0, max_shared_ = 0, multiprocessors_ = 0;
  Handle context_ = nullptr;
  std::string name_;
};

/// How many devices CUDA shows. Throws Error where there is no driver.
int device_count();

/// A stream that does not wait for the default one.
class Stream {
 public:
  explicit Stream(std::shared_ptr<const Device> device);
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  [[nodiscard]] Handle handle() const { return handle_; }
  /// The host waits until everything on it is done.
  void wait() const { check(driver().stream_wait(handle_), "waiting for a stream"); }

 private:
  std::shared_ptr<const Device> device_;
  Handle handle_ = nullptr;
};

/// A point in the work of a stream; one that was never recorded has come.
class Event {
 public:
  explicit Event(std::shared_ptr<const Device> device);
  ~Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  [[nodiscard]] Handle handle() const { return handle_; }
  void record(Handle stream) { check(driver().event_record(handle_, stream), "recording an event"); }
  /// What comes later on the stream waits for it.
  void block(Handle stream) const { check(driver().stream_wait_event(stream, handle_, 0), "letting a stream wait for an event"); }
  /// The host waits.
  void wait() const { check(driver().event_wait(handle_), "waiting for an event"); }
  [[nodiscard]] bool has_come() const;

 private:
  std::shared_ptr<const Device> device_;
  Handle handle_ = nullptr;
};

/// Memory of the host that copies from and to the device go through without waiting. Contents are undefined.
class Pinned {
 public:
  Pinned(std::shared_ptr<const Device> device, std::size_t bytes);
  ~Pinned();
  Pinned(const Pinned&) = delete;
  Pinned& operator=(const Pinned&) = delete;

  [[nodiscard]] std::size_t bytes() const { return bytes_; }
  template <class T>
  [[nodiscard]] T* at(std::size_t offset = 0) const {
    return reinterpret_cast<T*>(static_cast<unsigned char*>(at_) + offset);
  }

 private:
  std::shared_ptr<const Device> device_;
  void* at_ = nullptr;
  std::size_t bytes_;
};

/// Memory of the driver, 256-byte aligned; no bytes: null. Throws out_of_memory. The context must be current.
Memory allocate(std::shared_ptr<const Device> device, std::size_t bytes);

/// Of the hook, where there is one.
Memory allocate(const std::shared_ptr<const Device>& device, const Hooks& hooks, std::size_t bytes);

}  // namespace dpa2::gpu
