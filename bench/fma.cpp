#include "fma.hpp"

#include "cpu/simd.hpp"

namespace dpa2 {

using simd::load;
using simd::splat;
using simd::store;
using simd::Vec;
using simd::width;

// Independent chains: enough for two units with a latency of four cycles or more, few enough for 16 registers.
constexpr int chains = 12;

template <class T, class Isa>
double FmaLoop<T, Isa>::run(long n, T* result) {
  Vec<T> acc[chains];
  // Values from memory: constants would be folded. The factor is below 1, so that nothing overflows.
  const Vec<T> factor = splat<T>(result[0]), term = splat<T>(result[1]);
#pragma GCC unroll 12
  for (int i = 0; i < chains; ++i) acc[i] = term * T(i);
#pragma GCC unroll 1
  for (long k = 0; k < n; ++k) {
#pragma GCC unroll 12
    for (int i = 0; i < chains; ++i) acc[i] = acc[i] * factor + term;
  }
  Vec<T> total = acc[0];
#pragma GCC unroll 12
  for (int i = 1; i < chains; ++i) total += acc[i];
  store<T>(result + 2, total);
  return 2.0 * chains * width<T> * static_cast<double>(n);
}

template <class T, class Isa>
void FmaLoop<T, Isa>::triad(long n, T* a, const T* b, const T* c, T scale) {
  for (long i = 0; i < n; i += 4 * width<T>) {
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
      const long at = i + v * width<T>;
      store<T>(a + at, load<T>(b + at) + load<T>(c + at) * scale);
    }
  }
}

DPA2_INSTANTIATE(FmaLoop)

}  // namespace dpa2
