// Loops that measure a processor, compiled once per ISA level like the kernels.
#pragma once

namespace dpa2 {

template <class T, class Isa>
struct FmaLoop {
  /// `n` rounds of independent multiply-adds on registers; returns the number of floating-point operations. What it computes
  /// goes to `result`, so that nothing is optimised away.
  static double run(long n, T* result);
  /// a = b + c * scale on n elements, n a multiple of 64 bytes.
  static void triad(long n, T* a, const T* b, const T* c, T scale);
};

}  // namespace dpa2
