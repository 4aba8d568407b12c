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

template <class T>
struct Problem {
  int k;
  long ldc, ars, acs, bks;
  bool accumulate;
};

/// One tile of C. The loops over r and v vanish at compile time, or the accumulators would be spilled.
template <class T, int MR, int NV, bool RowMajorA>
DPA2_INLINE void tile(const Problem<T>& p, T* C, const T* A, const T* const* B, const T* const* bias) {
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
    for (int v = 0; v < NV; ++v) {
      T* c = C + r * p.ldc + v * width<T>;
      store<T>(c, acc[r][v]);
    }
}

template <class T, int MR, int NV, bool RowMajorA>
void tiles(int count, const Problem<T>& p, T* C, const T* A, const T* const* B, const T* const* bias) {
#pragma GCC unroll 1
  for (int i = 0; i < count; ++i) {
    tile<T, MR, NV, RowMajorA>(p, C, A, B, bias);
    C += MR * p.ldc;
    A += MR * (RowMajorA ? p.ars : 1);
  }
}

template <class T, int NV, bool RowMajorA>
void rows(int mr, int count, const Problem<T>& p, T* C, const T* A, const T* const* B, const T* const* bias) {
  switch (mr) {
#define DPA2_CASE(MR)                                                                      \
  case MR:                                                                                 \
    if constexpr (MR <= max_rows<NV>) return tiles<T, MR, NV, RowMajorA>(count, p, C, A, B, bias); \
    return;
    DPA2_CASE(1) DPA2_CASE(2) DPA2_CASE(3) DPA2_CASE(4) DPA2_CASE(5) DPA2_CASE(6)
    DPA2_CASE(7) DPA2_CASE(8) DPA2_CASE(9) DPA2_CASE(10) DPA2_CASE(11) DPA2_CASE(12)
#undef DPA2_CASE
    default:
      return;
  }
}

template <class T, int NV>
void columns(int m, int c0, const Problem<T>& whole, T* C, const T* A, const T* B, long bps, const T* bias) {
  constexpr int panel = simd::pad<T>;
  const T* b[NV];
  const T* bias_v[NV];
  for (int v = 0; v < NV; ++v) {
    const int c = c0 + v * width<T>;
    b[v] = B + (c / panel) * bps + c % panel;
    bias_v[v] = bias != nullptr ? bias + c : nullptr;
  }
  // Nearly equal blocks of rows and of terms: a one-row tail would leave the FMA pipeline idle.
  const int blocks = (m + max_rows<NV> - 1) / max_rows<NV>;
  const int passes = whole.k > block_k ? (whole.k + block_k - 1) / block_k : 1;
  int k0 = 0;
  for (int pass = 0; pass < passes; ++pass) {
    const int k1 = static_cast<int>(static_cast<long>(whole.k) * (pass + 1) / passes);
    Problem<T> p = whole;
    p.k = k1 - k0;
    p.accumulate = whole.accumulate || pass > 0;
    const T* a = A + k0 * p.acs;
    T* c = C + c0;
    const auto group = [&](int mr, int count) {
      if (count == 0) return;
      if (p.acs == 1)
        rows<T, NV, true>(mr, count, p, c, a, b, bias_v);
      else
        rows<T, NV, false>(mr, count, p, c, a, b, bias_v);
      c += mr * count * p.ldc;
      a += mr * count * p.ars;
    };
    const int least = m / blocks, more = m % blocks;
    group(least + 1, more);
    group(least, blocks - more);
    for (int v = 0; v < NV; ++v) b[v] += (k1 - k0) * p.bks;
    k0 = k1;
  }
}

}  // namespace

template <class T, class Isa>
void Linear<T, Isa>::run(int m, int n, int k, T* C, long ldc, const T* A, long ars, long acs, const T* B, long bks, long bps, const T* bias,
                       bool accumulate) {
  if (m <= 0) return;
  const Problem<T> p{k, ldc, ars, acs, bks, accumulate};
  int c = 0, left = n / width<T>;
  const auto strip = [&](auto vectors) {
    columns<T, vectors()>(m, c, p, C, A, B, bps, bias);
    c += vectors() * width<T>;
    left -= vectors();
  };
  while (left > tile_vectors + 1 || left == tile_vectors) strip(std::integral_constant<int, tile_vectors>());
  if (left == tile_vectors + 1) strip(std::integral_constant<int, tile_vectors + 1>());
  if constexpr (tile_vectors > 2) {
    if (left == 3) strip(std::integral_constant<int, 3>());
    if (left == 2) strip(std::integral_constant<int, 2>());
  }
  if (left == 1) strip(std::integral_constant<int, 1>());
}

DPA2_INSTANTIATE(Linear)

}  // namespace dpa2
