// Rows of a table of the types that edges or pairs select, with the edges on the lanes, and the gate of strip mode made of them.
#pragma once

#include "cpu/simd.hpp"

namespace dpa2 {

/// A square, as many channels as a vector has edges: t[i] holds channel i of the table's rows row[0], row[1], ...
/// Table: rows of ld numbers, from the first of the channels on; all of a vector are read.
template <class R>
DPA2_INLINE void gather_rows(simd::Vec<R> (&t)[simd::width<R>], const R* table, long ld, const int* row) {
#pragma GCC unroll 16
  for (int i = 0; i < simd::width<R>; ++i) t[i] = simd::load<R>(table + row[i] * ld);
  simd::transpose<R>(t);
}

/// Rows of the table += the square; t is used up.
template <class R>
DPA2_INLINE void add_to_rows(R* table, long ld, const int* row, simd::Vec<R> (&t)[simd::width<R>]) {
  simd::transpose<R>(t);
#pragma GCC unroll 16
  for (int i = 0; i < simd::width<R>; ++i) simd::store<R>(table + row[i] * ld, simd::load<R>(table + row[i] * ld) + t[i]);
}

/// The factor that the types are in strip mode: none, 1 + gate, or 1 + gate times a switch.
enum class Gate { none, types, smooth };

template <Gate kind, class T>
DPA2_INLINE auto gate_factor(simd::Vec<Real<T>> gate, [[maybe_unused]] simd::Vec<T> sw) {
  if constexpr (kind == Gate::smooth)
    return Real<T>(1) + gate * sw;
  else
    return Real<T>(1) + gate;
}

}  // namespace dpa2
