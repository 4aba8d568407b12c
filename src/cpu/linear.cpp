// Register-blocked product: MR rows times NV vectors of accumulators, one broadcast of A per row and step.
#include "cpu/linear.hpp"

#include <type_traits>

#include "cpu/simd_pairs.hpp"

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
/// Of products of dual numbers with dual numbers, whose sums take two registers each: with 16 registers tiles are one vector wide
/// and have as many more rows, for each vector of B costs shuffles.
template <class B>
constexpr bool narrow = is_dual<B> && accumulators == 12;
template <class C, class B>
constexpr int registers = is_dual<C> || is_dual<B> ? 2 : 1;
template <class C, class B, int NV>
constexpr int max_rows = accumulators / (NV * registers<C, B>) < 12 ? accumulators / (NV * registers<C, B>) : 12;

// Terms per pass: a block of B stays in L1 while all rows use it, and shorter chains of additions round less in float32.
constexpr int block_k = 160;

// Elements of B that a group of rows goes over before the next group follows: they are still in L1 then.
constexpr int block_b = 2048;

template <class C>
struct Problem {
  int k;
  long ldc, ars, acs, bks, bps;
  const Real<C>* bias;
  bool accumulate;
};

/// What a tile keeps of its factors and of a vector of sums. Here lanes are columns; features that are dual meet plain weights.
template <class C, class A, class B>
struct Form {
  using Left = Vec<A>;
  using Right = Vec<B>;
  using Sum = Vec<C>;
  static DPA2_INLINE Left left(const A* a) { return splat<A>(*a); }
  static DPA2_INLINE Right right(const B* b) { return load<B>(b); }
  static DPA2_INLINE Sum begin(const C* c, const Real<C>* bias, bool accumulate) {
    return accumulate ? load<C>(c) : bias != nullptr ? simd::constant<C>(load<Real<C>>(bias)) : Sum{};
  }
  static DPA2_INLINE void add(Sum& c, const Left& a, const Right& b) {
    if constexpr (is_dual<C>) {
      c.v += a.v * b;
      c.d += a.d * b;
    } else {
      c += a * b;
    }
  }
  static DPA2_INLINE void end(C* c, const Sum& sum) { store<C>(c, sum); }
};

/// Dual numbers all: their lanes are in the order in which values and tangents come apart soonest.
template <class R>
struct Form<Dual<R>, Dual<R>, Dual<R>> {
  using D = Dual<R>;
  using Left = Vec<D>;
  using Right = Vec<D>;
  using Sum = Vec<D>;
  static DPA2_INLINE Left left(const D* a) { return splat<D>(*a); }
  static DPA2_INLINE Right right(const D* b) { return simd::load_blocks<R>(b); }
  static DPA2_INLINE Sum begin(const D* c, const R* bias, bool accumulate) {
    return accumulate ? simd::load_blocks<R>(c) : bias != nullptr ? Sum{simd::in_blocks<R>(load<R>(bias)), Vec<R>{}} : Sum{};
  }
  static DPA2_INLINE void add(Sum& c, const Left& a, const Right& b) {
    c.v += a.v * b.v;
    c.d += a.v * b.d;
    c.d += a.d * b.v;
  }
  static DPA2_INLINE void end(D* c, const Sum& sum) { simd::store_blocks<R>(c, sum); }
};

/// The tangents of a product of dual numbers, added to C. Both terms of a tangent have lanes of their own, as they lie in memory:
/// pairs (v, d) of A times pairs (d, v) of B.
template <class R>
struct Form<R, Dual<R>, Dual<R>> {
  using D = Dual<R>;
  using Left = Vec<R>;
  struct Sum {
    Vec<R> first, second;
  };
  using Right = Sum;
  static DPA2_INLINE Left left(const D* a) { return simd::splat_pair<R>(a); }
  static DPA2_INLINE Right right(const D* b) {
    const R* p = reinterpret_cast<const R*>(b);
    return {simd::swapped<R>(load<R>(p)), simd::swapped<R>(load<R>(p + width<R>))};
  }
  static DPA2_INLINE Sum begin(const R*, const R*, bool) { return {Vec<R>{}, Vec<R>{}}; }
  static DPA2_INLINE void add(Sum& c, const Left& a, const Right& b) {
    c.first += a * b.first;
    c.second += a * b.second;
  }
  static DPA2_INLINE void end(R* c, const Sum& sum) { store<R>(c, load<R>(c) + simd::sums_of_pairs<R>(sum.first, sum.second)); }
};

/// One tile of C. The loops over r and v vanish at compile time, or the accumulators would be spilled.
template <class T, class A, class B, int MR, int NV, bool RowMajorA>
DPA2_INLINE void tile(const Problem<T>& p, T* C, const A* a, const B* const (&first)[NV], const Real<T>* const (&bias)[NV]) {
  using F = Form<T, A, B>;
  typename F::Sum acc[MR][NV];
#pragma GCC unroll 16
  for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) acc[r][v] = F::begin(C + r * p.ldc + v * width<T>, bias[v], p.accumulate);
  const B* b[NV];
#pragma GCC unroll 4
  for (int v = 0; v < NV; ++v) b[v] = first[v];
  const long ars = RowMajorA ? p.ars : 1;
  const long acs = RowMajorA ? 1 : p.acs;
  const long bks = p.bks;
  const auto step = [&]() __attribute__((always_inline)) {
    typename F::Right bv[NV];
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      bv[v] = F::right(b[v]);
      b[v] += bks;
    }
#pragma GCC unroll 16
    for (int r = 0; r < MR; ++r) {
      const typename F::Left ar = F::left(a + r * ars);
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) F::add(acc[r][v], ar, bv[v]);
    }
    a += acs;
  };
  if constexpr (is_dual<A> || is_dual<B>) {  // two or three times as much in a step: it need not be repeated as often
#pragma GCC unroll 2
    for (int k = 0; k < p.k; ++k) step();
  } else {
#pragma GCC unroll 8
    for (int k = 0; k < p.k; ++k) step();
  }
#pragma GCC unroll 16
  for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) F::end(C + r * p.ldc + v * width<T>, acc[r][v]);
}

/// `count` blocks of MR rows, the columns first to last.
template <class T, class A, class B, int MR, int NV, bool RowMajorA>
void tiles(int count, int first, int last, const Problem<T>& p, T* C, const A* rows, const B* columns) {
  constexpr int panel = simd::pad<T>;
#pragma GCC unroll 1
  for (int c0 = first; c0 < last; c0 += NV * width<T>) {
    const B* b[NV];
    const Real<T>* bias[NV];
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      const int c = c0 + v * width<T>;
      b[v] = columns + (c / panel) * p.bps + c % panel;
      bias[v] = p.bias != nullptr ? p.bias + c : nullptr;
    }
    T* to = C + c0;
    const A* a = rows;
#pragma GCC unroll 1
    for (int i = 0; i < count; ++i) {
      tile<T, A, B, MR, NV, RowMajorA>(p, to, a, b, bias);
      to += MR * p.ldc;
      a += MR * (RowMajorA ? p.ars : 1);
    }
  }
}

template <class T, int NV, bool RowMajorA, class A, class B>
void rows(int mr, int count, int first, int last, const Problem<T>& p, T* C, const A* a, const B* b) {
  switch (mr) {
#define DPA2_CASE(MR)                                                                                                 \
  case MR:                                                                                                            \
    if constexpr (MR <= max_rows<T, B, NV>) return tiles<T, A, B, MR, NV, RowMajorA>(count, first, last, p, C, a, b); \
    return;
    DPA2_CASE(1)
    DPA2_CASE(2)
    DPA2_CASE(3)
    DPA2_CASE(4)
    DPA2_CASE(5)
    DPA2_CASE(6)
    DPA2_CASE(7)
    DPA2_CASE(8)
    DPA2_CASE(9)
    DPA2_CASE(10)
    DPA2_CASE(11)
    DPA2_CASE(12)
#undef DPA2_CASE
    default:
      return;
  }
}

/// Columns c0 to c1, in strips of NV vectors.
template <class T, int NV, class A, class B>
void columns(int m, int c0, int c1, const Problem<T>& whole, T* C, const A* A0, const B* B0) {
  // Nearly equal blocks of rows and of terms: a one-row tail would leave the FMA pipeline idle.
  constexpr int most = max_rows<T, B, NV>;
  const int blocks = (m + most - 1) / most, least = m / blocks, more = m % blocks;
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
      const A* a = A0 + k0 * p.acs;
      const B* b = B0 + k0 * p.bks;
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

template <class T, class A, class B>
void multiply(int m, int n, int k, T* C, long ldc, const A* a, long ars, long acs, const B* b, long bks, long bps, const Real<T>* bias,
              bool accumulate) {
  if (m <= 0) return;
  const Problem<T> p{k, ldc, ars, acs, bks, bps, bias, accumulate};
  int c = 0, left = n / width<T>;
  const auto strips = [&](auto vectors, int count) {
    constexpr int nv = decltype(vectors)::value;  // and no call, which the linker could take from another level
    const int end = c + count * nv * width<T>;
    if (count > 0) columns<T, nv>(m, c, end, p, C, a, b);
    c = end;
    left -= count * nv;
  };
  if constexpr (!narrow<B>) {
    strips(std::integral_constant<int, tile_vectors>(),
           left % tile_vectors == 1 && left > 1 ? left / tile_vectors - 1 : left / tile_vectors);
    strips(std::integral_constant<int, tile_vectors + 1>(), left / (tile_vectors + 1));
    if constexpr (tile_vectors > 2) {
      strips(std::integral_constant<int, 3>(), left / 3);
      strips(std::integral_constant<int, 2>(), left / 2);
    }
  }
  strips(std::integral_constant<int, 1>(), left);
}

}  // namespace

template <class T, class Isa>
template <class A, class B>
void Linear<T, Isa>::run(int m, int n, int k, T* C, long ldc, const A* a, long ars, long acs, const B* b, long bks, long bps,
                         const Real<T>* bias, bool accumulate) {
  if constexpr (!is_dual<A> && is_dual<B>) {  // values and tangents are columns beside each other, of a plain product
    using R = Real<T>;
    if (bias != nullptr && !accumulate)
      for (int r = 0; r < m; ++r)
        for (int c = 0; c < n; ++c) C[r * ldc + c] = T(bias[c], R(0));
    multiply(m, 2 * n, k, reinterpret_cast<R*>(C), 2 * ldc, a, ars, acs, reinterpret_cast<const R*>(b), 2 * bks, bps,
             static_cast<const R*>(nullptr), accumulate || bias != nullptr);
  } else {
    multiply(m, n, k, C, ldc, a, ars, acs, b, bks, bps, bias, accumulate);
  }
}

template <class T, class Isa>
void Linear<T, Isa>::gradient(int m, int n, int k, Real<T>* C, long ldc, const T* A, long ars, long acs, const T* B, long bks, long bps) {
  multiply(m, n, k, C, ldc, A, ars, acs, B, bks, bps, static_cast<const Real<T>*>(nullptr), true);
}

template <class T, class Isa>
void Linear<T, Isa>::bias_gradient(int n, int k, Real<T>* c, const T* B, long ldb) {
  using R = Real<T>;
  for (int i = 0; i < n; i += width<T>) {
    Vec<R> acc = load<R>(c + i);
    for (int r = 0; r < k; ++r) acc += simd::gradient_of<T>(load<T>(B + r * ldb + i));
    store<R>(c + i, acc);
  }
}

template <class T, class Isa>
void Linear<T, Isa>::gain_gradient(int n, int k, Real<T>* c, const T* A, long lda, const T* B, long ldb) {
  using R = Real<T>;
  for (int i = 0; i < n; i += width<T>) {
    Vec<R> acc = load<R>(c + i);
    for (int r = 0; r < k; ++r) acc += simd::gradient_of<T>(load<T>(A + r * lda + i) * load<T>(B + r * ldb + i));
    store<R>(c + i, acc);
  }
}

DPA2_INSTANTIATE(Linear)
DPA2_INSTANTIATE_DUAL(Linear)

#define DPA2_PRODUCT(T, A, B)                                                                                                            \
  template void Linear<T, isa::DPA2_ISA>::run<A, B>(int, int, int, T*, long, const A*, long, long, const B*, long, long, const Real<T>*, \
                                                    bool);
#define DPA2_PRODUCTS(R)            \
  DPA2_PRODUCT(R, R, R)             \
  DPA2_PRODUCT(Dual<R>, Dual<R>, R) \
  DPA2_PRODUCT(Dual<R>, R, Dual<R>) \
  DPA2_PRODUCT(Dual<R>, Dual<R>, Dual<R>)
DPA2_PRODUCTS(double)
DPA2_PRODUCTS(float)

}  // namespace dpa2
