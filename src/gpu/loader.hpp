// What a model needs on a device before it evaluates: compiled kernels and constants.
#pragma once

#include <cstdint>
#include <type_traits>
#include <vector>

#include "fold/matrix.hpp"
#include "gpu/kernel.hpp"

namespace dpa2::gpu {

class Loader {
 public:
  virtual ~Loader() = default;

  /// A kernel of src/cuda/<source>; `defines` beside -Dreal=..., which is the model's precision unless it is among them.
  virtual Function function(const char* source, const char* name, const Defines& defines = {}) = 0;

  /// Constants of the device that live as long as the engine, rounded once; null where there are none.
  template <class T>
  const T* upload(const std::vector<double>& values) {
    if constexpr (std::is_same_v<T, double>) {
      return uploaded(values);
    } else {
      std::vector<T> rounded(values.size());
      for (std::size_t k = 0; k < values.size(); ++k) rounded[k] = static_cast<T>(values[k]);
      return uploaded(rounded);
    }
  }
  template <class T>
  const T* upload(const Matrix& m) {
    return upload<T>(m.a);
  }
  /// The same of numbers that are what they are.
  template <class T>
  const T* uploaded(const std::vector<T>& values) {
    return values.empty() ? nullptr : static_cast<const T*>(upload_bytes(values.data(), values.size() * sizeof(T)));
  }

  /// Bytes of shared memory that a block may have on this device, static and dynamic together; 48 KiB need nothing special.
  [[nodiscard]] virtual int max_shared() const = 0;
  /// Whether products are compiled with -DTENSOR=1.
  [[nodiscard]] virtual bool tensor_cores() { return false; }
  /// How many run blocks at the same time.
  [[nodiscard]] virtual int multiprocessors() const = 0;

 protected:
  virtual const void* upload_bytes(const void* data, std::size_t bytes) = 0;
};

}  // namespace dpa2::gpu
