#include "cpu/conv.hpp"

#include "cpu/simd.hpp"

namespace dpa2 {

using simd::load;
using simd::pad;
using simd::store;
using simd::sum;
using simd::Vec;
using simd::width;

namespace {

/// y (n, nb) = a P: indexed rows are gathered first, so that one product serves all edges. Returns the rows of the edges in order.
template <class T, class Isa>
EdgeRows<T> project(int n, T* y, T* gathered, const EdgeRows<T>& a, const Packed<Real<T>>& P) {
  EdgeRows<T> rows = a;
  if (a.index != nullptr) {
    for (int e = 0; e < n; ++e)
      for (int c = 0; c < P.k; c += width<T>) store<T>(gathered + static_cast<long>(e) * P.k + c, load<T>(row(a, e) + c));
    rows = {gathered, P.k, nullptr};
  }
  Linear<T, Isa>::run(n, P.n, P.k, y, P.n, rows.rows, rows.ld, 1, P.data, pad<T>, static_cast<long>(P.k) * pad<T>, nullptr, false);
  return rows;
}

/// Vectors of channels that are summed at once: a row of an edge is read in long pieces.
constexpr int wide = 8;

/// out = sum over the edges of s y b, for NV vectors of channels from c on.
template <int NV, class T>
void message(int n, T* out, const T* y, const EdgeRows<T>& b, const T* s, int nb, int c) {
  Vec<T> acc[NV] = {};
  for (int e = 0; e < n; ++e) {
    const T *ye = y + static_cast<long>(e) * nb + c, *be = row(b, e) + c;
    const T se = s[e];
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) acc[v] += load<T>(ye + v * width<T>) * load<T>(be + v * width<T>) * se;
  }
#pragma GCC unroll 8
  for (int v = 0; v < NV; ++v) store<T>(out + c + v * width<T>, acc[v]);
}

}  // namespace

template <class T, class Isa>
void Conv<T, Isa>::forward(int n, T* out, const EdgeRows<T>& a, const EdgeRows<T>& b, const Packed<Real<T>>& P, const T* s, Arena& arena) {
  const Arena::Mark mark = arena.mark();
  const int nb = P.n;
  T* y = arena.take<T>(static_cast<long>(n) * nb);
  T* gathered = a.index != nullptr ? arena.take<T>(static_cast<long>(n) * P.k) : nullptr;
  project<T, Isa>(n, y, gathered, a, P);
  int c = 0;
  for (; c + wide * width<T> <= nb; c += wide * width<T>) message<wide>(n, out, y, b, s, nb, c);
  for (; c < nb; c += width<T>) message<1>(n, out, y, b, s, nb, c);
  arena.release(mark);
}

template <class T, class Isa>
void Conv<T, Isa>::backward(int n, T* da, long dald, const int* ascatter, T* db, long dbld, const int* bscatter, T* ds, Real<T>* dP,
                            const T* dout, const EdgeRows<T>& a, const EdgeRows<T>& b, const Packed<Real<T>>& P, const Packed<Real<T>>& Pt,
                            const T* s, Arena& arena) {
  const Arena::Mark mark = arena.mark();
  const int nb = P.n, na = P.k;
  T* y = arena.take<T>(static_cast<long>(n) * nb);
  T* gathered = a.index != nullptr ? arena.take<T>(static_cast<long>(n) * na) : nullptr;
  T* dy = ascatter != nullptr ? arena.take<T>(static_cast<long>(n) * na) : nullptr;
  const EdgeRows<T> rows = project<T, Isa>(n, y, gathered, a, P);
  for (int e = 0; e < n; ++e) {
    T* ye = y + static_cast<long>(e) * nb;
    const T* be = row(b, e);
    T* dbe = db + static_cast<long>(bscatter != nullptr ? bscatter[e] : e) * dbld;
    const T se = s[e];
    Vec<T> acc{};
    for (int c = 0; c < nb; c += width<T>) {
      const Vec<T> g = load<T>(dout + c), yv = load<T>(ye + c), bv = load<T>(be + c);
      const Vec<T> gb = g * bv;
      acc += gb * yv;
      store<T>(dbe + c, load<T>(dbe + c) + g * yv * se);
      store<T>(ye + c, gb * se);  // the projection has served: its memory takes its gradient
    }
    ds[e] += sum<T>(acc);
  }
  if (dP != nullptr) Linear<T, Isa>::gradient(na, nb, n, dP, nb, rows.rows, 1, rows.ld, y, nb, pad<T>);
  const long bps = static_cast<long>(Pt.k) * pad<T>;
  if (ascatter == nullptr) {
    Linear<T, Isa>::run(n, na, nb, da, dald, y, nb, 1, Pt.data, pad<T>, bps, nullptr, true);
  } else {
    Linear<T, Isa>::run(n, na, nb, dy, na, y, nb, 1, Pt.data, pad<T>, bps, nullptr, false);
    for (int e = 0; e < n; ++e) {
      T* dae = da + static_cast<long>(ascatter[e]) * dald;
      for (int c = 0; c < na; c += width<T>) store<T>(dae + c, load<T>(dae + c) + load<T>(dy + static_cast<long>(e) * na + c));
    }
  }
  arena.release(mark);
}

DPA2_INSTANTIATE(Conv)
DPA2_INSTANTIATE_DUAL(Conv)

}  // namespace dpa2
