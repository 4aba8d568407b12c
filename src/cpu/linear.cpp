// Register-blocked product: MR rows times NV vectors of accumulators, one broadcast of A per row and step.
#include "cpu/linear.hpp"

#include <type_traits>

#include "cpu/simd.hpp"

namespace dpa2 {
namespace {

using simd::load;
using simd::splat;
using simd::store;
using simd::Vec;
using simd::width;

// Accumulators: 12 of 16 registers up to AVX2, 24 of 32 with AVX-512 and elsewhere. Tiles are `tile_vectors` wide; what is left
// over goes into one tile that is wider by one, or narrower, and has as many more or fewer rows.
#if defined(__AVX512F__)
constexpr int accumulators = 24, tile_vectors = 2;
#elif defined(__AVX__) || defined(__SSE2__)
constexpr int accumulators = 12, tile_vectors = 2;
#else
constexpr int accumulators = 24, tile_vectors = 4;
#endif
template <int NV>
constexpr int max_rows = accumulators / NV < 12 ? accumulators / NV : 12;

// Terms per pass: a block of B stays in L1 while all rows use it, and shorter chains of additions round less in float32.
constexpr int block_k = 160;

// Elements of B that a group of rows goes over before the next group follows: they are still in L1 then.
constexpr int block_b = 2048;

template <class T>
struct Problem {
  int k;
  long ldc, ars, acs, bks, bps;
  const T* bias;
  bool accumulate;
};

/// One tile of C. The loops over r and v vanish at compile time, or the accumulators would be spilled.
template <class T, int MR, int NV, bool RowMajorA>
DPA2_INLINE void tile(const Problem<T>& p, T* C, const T* A, const T* const (&B)[NV], const T* const (&bias)[NV]) {
  Vec<T> acc[MR][NV];
#pragma GCC unroll 16
  for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v)
      acc[r][v] = p.accumulate ? load<T>(C + r * p.ldc + v * width<T>) : bias[v] != nullptr ? load<T>(bias[v]) : Vec<T>{};
  const T* b[NV];
#pragma GCC unroll 4
  for (int v = 0; v < NV; ++v) b[v] = B[v];
  const T* a = A;
  const long ars = RowMajorA ? p.ars : 1;
  const long acs = RowMajorA ? 1 : p.acs;
  const long bks = p.bks;
#pragma GCC unroll 8
  for (int k = 0; k < p.k; ++k) {
    Vec<T> bv[NV];
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      bv[v] = load<T>(b[v]);
      b[v] += bks;
    }
#pragma GCC unroll 16
    for (int r = 0; r < MR; ++r) {
      const Vec<T> ar = splat<T>(a[r * ars]);
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) acc[r][v] += ar * bv[v];
    }
    a += acs;
  }
#pragma GCC unroll 16
  for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) store<T>(C + r * p.ldc + v * width<T>, acc[r][v]);
}

/// `count` blocks of MR rows, the columns first to last.
template <class T, int MR, int NV, bool RowMajorA>
void tiles(int count, int first, int last, const Problem<T>& p, T* C, const T* A, const T* B) {
  constexpr int panel = simd::pad<T>;
#pragma GCC unroll 1
  for (int c0 = first; c0 < last; c0 += NV * width<T>) {
    const T *b[NV], *bias[NV];
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      const int c = c0 + v * width<T>;
      b[v] = B + (c / panel) * p.bps + c % panel;
      bias[v] = p.bias != nullptr ? p.bias + c : nullptr;
    }
    T* to = C + c0;
    const T* a = A;
#pragma GCC unroll 1
    for (int i = 0; i < count; ++i) {
      tile<T, MR, NV, RowMajorA>(p, to, a, b, bias);
      to += MR * p.ldc;
      a += MR * (RowMajorA ? p.ars : 1);
    }
  }
}

template <class T, int NV, bool RowMajorA>
void rows(int mr, int count, int first, int last, const Problem<T>& p, T* C, const T* A, const T* B) {
  switch (mr) {
#define DPA2_CASE(MR)                                                                                     \
  case MR:                                                                                                \
    if constexpr (MR <= max_rows<NV>) return tiles<T, MR, NV, RowMajorA>(count, first, last, p, C, A, B); \
    return;
    DPA2_CASE(1)
    DPA2_CASE(2)
    DPA2_CASE(3) DPA2_CASE(4) DPA2_CASE(5) DPA2_CASE(6) DPA2_CASE(7) DPA2_CASE(8) DPA2_CASE(9) DPA2_CASE(10) DPA2_CASE(11) DPA2_CASE(12)
#undef DPA2_CASE
        default : return;
  }
}

/// Columns c0 to c1, in strips of NV vectors.
template <class T, int NV>
void columns(int m, int c0, int c1, const Problem<T>& whole, T* C, const T* A, const T* B) {
  // Nearly equal blocks of rows and of terms: a one-row tail would leave the FMA pipeline idle.
  const int blocks = (m + max_rows<NV> - 1) / max_rows<NV>, least = m / blocks, more = m % blocks;
  const int passes = whole.k > block_k ? (whole.k + block_k - 1) / block_k : 1;
  constexpr int strip = NV * width<T>;
  const int step = strip * (whole.k * 2 * strip <= block_b ? block_b / (whole.k * strip + 1) : 1);
  for (int c = c0; c < c1; c += step) {
    const int end = c1 - c < step ? c1 : c + step;
    int k0 = 0;
    for (int pass = 0; pass < passes; ++pass) {
      const int k1 = static_cast<int>(static_cast<long>(whole.k) * (pass + 1) / passes);
      Problem<T> p = whole;
      p.k = k1 - k0;
      p.accumulate = whole.accumulate || pass > 0;
      const T *a = A + k0 * p.acs, *b = B + k0 * p.bks;
      T* to = C;
      const auto group = [&](int mr, int count) {
        if (count == 0) return;
        if (p.acs == 1)
          rows<T, NV, true>(mr, count, c, end, p, to, a, b);
        else
          rows<T, NV, false>(mr, count, c, end, p, to, a, b);
        to += mr * count * p.ldc;
        a += mr * count * p.ars;
      };
      group(least + 1, more);
      group(least, blocks - more);
      k0 = k1;
    }
  }
}

}  // namespace

template <class T, class Isa>
void Linear<T, Isa>::run(int m, int n, int k, T* C, long ldc, const T* A, long ars, long acs, const T* B, long bks, long bps, const T* bias,
                         bool accumulate) {
  if (m <= 0) return;
  const Problem<T> p{k, ldc, ars, acs, bks, bps, bias, accumulate};
  int c = 0, left = n / width<T>;
  const auto strips = [&](auto vectors, int count) {
    constexpr int nv = decltype(vectors)::value;  // and no call, which the linker could take from another level
    const int end = c + count * nv * width<T>;
    if (count > 0) columns<T, nv>(m, c, end, p, C, A, B);
    c = end;
    left -= count * nv;
  };
  strips(std::integral_constant<int, tile_vectors>(), left % tile_vectors == 1 && left > 1 ? left / tile_vectors - 1 : left / tile_vectors);
  strips(std::integral_constant<int, tile_vectors + 1>(), left / (tile_vectors + 1));
  if constexpr (tile_vectors > 2) {
    strips(std::integral_constant<int, 3>(), left / 3);
    strips(std::integral_constant<int, 2>(), left / 2);
  }
  strips(std::integral_constant<int, 1>(), left);
}

DPA2_INSTANTIATE(Linear)

}  // namespace dpa2
