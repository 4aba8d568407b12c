// Arguments and sizes of the products of rows with constant matrices: shared by host and kernels.
#pragma once

#include "math/portable.hpp"

namespace dpa2 {
namespace cuda {

constexpr int product_threads = 128;
constexpr int product_columns = 64;  ///< of a tile of results
constexpr int product_depth = 16;    ///< of what is multiplied at a time
/// Rows of a tile: what a thread owns of it is `each` rows, -DROWS=..., by four columns.
DPA2_MATH constexpr int product_rows(int each) { return 8 * each; }
/// Rows of a thread in large systems; two in small ones, which would not fill the device.
DPA2_MATH constexpr int product_each(int bytes_of_scalar) { return bytes_of_scalar == 4 ? 8 : 4; }
constexpr int product_each_small = 2;

DPA2_MATH constexpr int product_tiles(int n) { return (n + product_columns - 1) / product_columns; }
DPA2_MATH constexpr int product_padded(int k) { return (k + product_depth - 1) / product_depth * product_depth; }
/// A constant matrix (k, n) is `packed` for these kernels: tiles of product_columns columns one after the other, each with its
/// product_padded(k) rows, with zeros beyond the edges. Numbers of it:
DPA2_MATH constexpr int product_packed(int k, int n) { return product_tiles(n) * product_columns * product_padded(k); }

/// out = or += phi(A b + type_term[types]): each part may be absent.
template <class T>
struct ProductArgs {
  T* out;              // (rows, n)
  T* slope;            // (rows, n) phi' or null
  const T* a;          // (rows, k)
  const T* factor;     // (rows, k) each element of a is multiplied by its own, or null
  const T* b;          // (k, n) packed, or null: the identity, n == k
  const T* type_term;  // (ntypes, n) or null
  const int* types;    // (rows), read with type_term
  int rows;
  int n;
  int k;
  int active;      // 1: with phi
  int accumulate;  // 1: out +=
};
static_assert(sizeof(ProductArgs<float>) == 80 && sizeof(ProductArgs<double>) == 80, "fixed-width");

}  // namespace cuda
}  // namespace dpa2
