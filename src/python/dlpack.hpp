// The part of DLPack (version 0, "dltensor") that arrays of a GPU are handed over by.
#pragma once

#include <cstdint>

namespace dpa2::python::dlpack {

constexpr int cuda = 2, cuda_managed = 13;
constexpr std::uint8_t int_code = 0, uint_code = 1, float_code = 2;

struct Device {
  std::int32_t type, id;
};

struct DataType {
  std::uint8_t code, bits;
  std::uint16_t lanes;
};

struct Tensor {
  void* data;
  Device device;
  std::int32_t ndim;
  DataType dtype;
  std::int64_t *shape, *strides;  ///< strides in numbers; null: without gaps
  std::uint64_t byte_offset;
};

struct ManagedTensor {
  Tensor tensor;
  void* context;
  void (*deleter)(ManagedTensor*);
};

}  // namespace dpa2::python::dlpack
