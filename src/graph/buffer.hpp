// Memory that is kept from step to step.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#include "allocate.hpp"
#include "graph/count.hpp"
#include "padding.hpp"

namespace dpa2 {

/// An uninitialised array, aligned to 64 bytes, that only ever grows, and by a little more than it has to: the number of
/// neighbours fluctuates from step to step. Pages that are never touched cost no memory.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  Buffer(Buffer&& other) noexcept : data_(std::exchange(other.data_, nullptr)), capacity_(std::exchange(other.capacity_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(capacity_, other.capacity_);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { std::free(data_); }

  /// Makes room for n elements; their values are undefined afterwards. Throws std::bad_alloc.
  T* resize(std::size_t n) {
    if (n > capacity_) {
      std::free(data_);
      data_ = nullptr;
      capacity_ = 0;
      const std::size_t bytes = padded_bytes((n + n / slack) * sizeof(T));
      data_ = static_cast<T*>(allocate(bytes));
      if (data_ == nullptr) throw std::bad_alloc();
      capacity_ = bytes / sizeof(T);
    }
    return data_;
  }
  T* zeros(std::size_t n) {
    resize(n);
    if (n > 0) std::memset(static_cast<void*>(data_), 0, n * sizeof(T));
    return data_;
  }
  T* data() noexcept { return data_; }
  const T* data() const noexcept { return data_; }
  std::size_t bytes() const noexcept { return capacity_ * sizeof(T); }

 private:
  static constexpr std::size_t slack = 16;
  T* data_ = nullptr;
  std::size_t capacity_ = 0;
};

/// Several arrays of one size in one piece of memory.
template <class T>
class Layers {
 public:
  /// Room for `copies` of n elements; their values are undefined afterwards.
  void resize(Count n, int copies) {
    memory_.resize(static_cast<std::size_t>((n * copies).value()));
    size_ = static_cast<std::ptrdiff_t>(n.value());
  }
  T* operator[](int copy) noexcept { return data() + copy * size_; }
  T* data() noexcept { return memory_.data(); }
  std::size_t bytes() const noexcept { return memory_.bytes(); }

 private:
  Buffer<T> memory_;
  std::ptrdiff_t size_ = 0;
};

/// Both kinds in one way, for the table of a workspace.
template <class T>
void resize(Buffer<T>& buffer, Count n, int copies) {
  buffer.resize(static_cast<std::size_t>((n * copies).value()));
}
template <class T>
void resize(Layers<T>& layers, Count n, int copies) {
  layers.resize(n, copies);
}

}  // namespace dpa2
