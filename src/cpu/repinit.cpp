#include "cpu/repinit.hpp"

#include "cpu/simd.hpp"

namespace dpa2 {

using simd::load;
using simd::splat;
using simd::store;
using simd::sum;
using simd::Vec;
using simd::width;

namespace {

template <class T>
int padded(int n) {
  return (n + simd::pad<T> - 1) / simd::pad<T> * simd::pad<T>;
}

/// G (ng, m) *= 1 + gate * c, c = sw or 1; `net_out` keeps the ungated value where it is wanted.
template <class T>
void apply_gate(const RepinitParams<T>& p, int m, T* G, const T* net, const T* sw, const int* combination) {
  for (int c = 0; c < p.ng; ++c) {
    const T* table = p.gate + c;
    for (int e = 0; e < m; ++e) {
      const T g = table[static_cast<long>(combination[e]) * p.ng];
      const long k = static_cast<long>(c) * m + e;
      G[k] = net[k] * (T(1) + (p.gate_switch ? g * sw[e] : g));
    }
  }
}

/// M (4, ngp) = (1/nsel) sum_e R_e G_e + the padded slots.
template <class T>
void moments(const RepinitParams<T>& p, int m, T* M, const T* R, const T* G, const RepinitPad<T>& pad) {
  const int ngp = padded<T>(p.ng);
  for (int c = 0; c < p.ng; ++c) {
    Vec<T> acc[4] = {};
    const T* g = G + static_cast<long>(c) * m;
    for (int e = 0; e < m; e += width<T>) {
      const Vec<T> v = load<T>(g + e);
      for (int x = 0; x < 4; ++x) acc[x] += v * load<T>(R + x * m + e);
    }
    for (int x = 0; x < 4; ++x) {
      T value = sum<T>(acc[x]) * p.inv_nsel;
      if (pad.G != nullptr) value += pad.weight * pad.R[x] * pad.G[c];
      M[x * ngp + c] = value;
    }
  }
  for (int x = 0; x < 4; ++x)
    for (int c = p.ng; c < ngp; ++c) M[x * ngp + c] = T(0);
}

}  // namespace

template <class T, class Isa>
void Repinit<T, Isa>::embed(const RepinitParams<T>& p, int m, T** G, const T* s, const T* sw, const int* combination, Arena& arena) {
  EmbeddingTape<T> tape;
  EmbeddingNetOp<T, Isa>::layout(p.net, m, false, arena, tape);
  *G = tape.y[p.net.nlayers - 1];
  EmbeddingNetOp<T, Isa>::forward(p.net, m, tape, false, s, combination);
  if (p.gate != nullptr) apply_gate(p, m, *G, *G, sw, combination);
}

template <class T, class Isa>
void Repinit<T, Isa>::forward(const RepinitParams<T>& p, int m, T* D, T* M, const T* R, const T* sw, const int* combination,
                              const RepinitPad<T>& pad, Arena& arena) {
  const Arena::Mark mark = arena.mark();
  T* G = nullptr;
  embed(p, m, &G, R, sw, combination, arena);
  moments(p, m, M, R, G, pad);
  const int ngp = padded<T>(p.ng);
  for (int c = 0; c < p.ng; ++c)
    for (int a = 0; a < p.axis; ++a) {
      T acc = 0;
      for (int x = 0; x < 4; ++x) acc += M[x * ngp + c] * M[x * ngp + a];
      D[static_cast<long>(c) * p.axis + a] = acc;
    }
  arena.release(mark);
}

template <class T, class Isa>
void Repinit<T, Isa>::backward(const RepinitParams<T>& p, int m, T* dR, T* dsw, const T* dD, const T* R, const T* sw,
                               const int* combination, const RepinitPad<T>& pad, Arena& arena) {
  const Arena::Mark mark = arena.mark();
  const int ngp = padded<T>(p.ng);
  EmbeddingTape<T> tape;
  EmbeddingNetOp<T, Isa>::layout(p.net, m, true, arena, tape);
  T* M = arena.take<T>(4L * ngp);
  T* dM = arena.take<T>(4L * ngp);
  T* dG = arena.take<T>(static_cast<long>(p.ng) * m);
  T* gated = p.gate != nullptr ? arena.take<T>(static_cast<long>(p.ng) * m) : nullptr;
  T* ds = arena.take<T>(m);
  EmbeddingNetOp<T, Isa>::forward(p.net, m, tape, true, R, combination);
  const T* net = tape.y[p.net.nlayers - 1];
  const T* G = net;
  if (p.gate != nullptr) {
    apply_gate(p, m, gated, net, sw, combination);
    G = gated;
  }
  moments(p, m, M, R, G, pad);
  for (int x = 0; x < 4; ++x)
    for (int c = 0; c < p.ng; ++c) {
      T acc = 0;
      for (int a = 0; a < p.axis; ++a) acc += dD[static_cast<long>(c) * p.axis + a] * M[x * ngp + a];
      dM[x * ngp + c] = acc;
    }
  for (int x = 0; x < 4; ++x)
    for (int a = 0; a < p.axis; ++a) {
      T acc = 0;
      for (int c = 0; c < p.ng; ++c) acc += dD[static_cast<long>(c) * p.axis + a] * M[x * ngp + c];
      dM[x * ngp + a] += acc;
    }
  for (int e = 0; e < m; e += width<T>) {
    Vec<T> r[4], acc[4] = {};
    for (int x = 0; x < 4; ++x) r[x] = load<T>(R + x * m + e) * p.inv_nsel;
    for (int c = 0; c < p.ng; ++c) {
      const long k = static_cast<long>(c) * m + e;
      const Vec<T> g = load<T>(G + k);
      Vec<T> dg{};
      for (int x = 0; x < 4; ++x) {
        const T w = dM[x * ngp + c];
        dg += r[x] * w;
        acc[x] += g * w;
      }
      store<T>(dG + k, dg);
    }
    for (int x = 0; x < 4; ++x) store<T>(dR + x * m + e, load<T>(dR + x * m + e) + acc[x] * p.inv_nsel);
  }
  if (p.gate != nullptr) {
    for (int c = 0; c < p.ng; ++c)
      for (int e = 0; e < m; ++e) {
        const long k = static_cast<long>(c) * m + e;
        const T g = p.gate[static_cast<long>(combination[e]) * p.ng + c];
        if (p.gate_switch) {
          dsw[e] += dG[k] * net[k] * g;
          dG[k] *= T(1) + g * sw[e];
        } else {
          dG[k] *= T(1) + g;
        }
      }
  }
  EmbeddingNetOp<T, Isa>::backward(p.net, m, ds, dG, tape, arena);
  for (int e = 0; e < m; ++e) dR[e] += ds[e];
  arena.release(mark);
}

DPA2_INSTANTIATE(Repinit)

}  // namespace dpa2
