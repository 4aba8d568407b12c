// Arguments of the check of a device's tensor cores: shared by host and kernel.
#pragma once

#include "math/portable.hpp"

namespace dpa2 {
namespace cuda {

constexpr int tensor_check_depth = 64, tensor_check_columns = 8;
/// Rows of one product of a warp.
DPA2_MATH constexpr int tensor_check_rows(int bytes_of_scalar) { return bytes_of_scalar == 4 ? 16 : 8; }

/// out = a b
template <class T>
struct TensorCheckArgs {
  T* out;      // (tensor_check_rows, tensor_check_columns)
  const T* a;  // (tensor_check_rows, tensor_check_depth)
  const T* b;  // (tensor_check_depth, tensor_check_columns)
};
static_assert(sizeof(TensorCheckArgs<float>) == 24 && sizeof(TensorCheckArgs<double>) == 24, "fixed-width");

}  // namespace cuda
}  // namespace dpa2
