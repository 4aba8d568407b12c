// The skip connection of a hidden layer: its input, or its input twice, added to its output.
#pragma once

#include "cpu/simd.hpp"

namespace dpa2 {

/// Rows y (rows, ldy) += x (rows, ldx), the n numbers of a row `copies` times beside each other.
template <class T>
DPA2_INLINE void add_skip(int copies, int rows, long n, T* y, long ldy, const T* x, long ldx) {
  for (int i = 0; i < rows; ++i)
    for (int copy = 0; copy < copies; ++copy) {
      T* to = y + i * ldy + copy * n;
      const T* from = x + i * ldx;
#pragma GCC ivdep
      for (long c = 0; c < n; ++c) to[c] += from[c];
    }
}

/// Rows dx (rows, lddx) += the gradients of their copies in dy (rows, lddy).
template <class T>
DPA2_INLINE void add_skip_backward(int copies, int rows, long n, T* dx, long lddx, const T* dy, long lddy) {
  for (int copy = 0; copy < copies; ++copy) add_skip(1, rows, n, dx, lddx, dy + copy * n, lddy);
}

}  // namespace dpa2
