#include "cpu/repinit.hpp"

#include "cpu/linear.hpp"
#include "cpu/simd.hpp"

namespace dpa2 {

using simd::load;
using simd::splat;
using simd::store;
using simd::sum;
using simd::Vec;
using simd::width;

namespace {

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

/// D (ng*axis) = the Gram matrix of M, channel-major.
template <class T>
void gram(const RepinitParams<T>& p, T* D, const T* M) {
  const int ngp = padded<T>(p.ng);
  for (int c = 0; c < p.ng; ++c)
    for (int a = 0; a < p.axis; ++a) {
      T acc = 0;
      for (int x = 0; x < 4; ++x) acc += M[x * ngp + c] * M[x * ngp + a];
      D[static_cast<long>(c) * p.axis + a] = acc;
    }
}

/// dM += what one vector of axes from a on gives: both factors of its entries, read once.
template <class T>
void add_gram_gradient(const RepinitParams<T>& p, int a, T* dM, const T* dD, const T* M) {
  const int ngp = padded<T>(p.ng);
  Vec<T> axes[4], acc[4] = {};
  for (int x = 0; x < 4; ++x) axes[x] = load<T>(M + x * ngp + a);
  for (int c = 0; c < p.ng; ++c) {
    const Vec<T> g = load<T>(dD + static_cast<long>(c) * p.axis + a);
#pragma GCC unroll 4
    for (int x = 0; x < 4; ++x) {
      acc[x] += g * M[x * ngp + c];
      dM[x * ngp + c] += sum<T>(g * axes[x]);
    }
  }
  for (int x = 0; x < 4; ++x) store<T>(dM + x * ngp + a, load<T>(dM + x * ngp + a) + acc[x]);
}

/// dM (4, ngp) = , given dD; zero in the padding.
template <class T>
void gram_backward(const RepinitParams<T>& p, T* dM, const T* dD, const T* M) {
  const int ngp = padded<T>(p.ng);
  for (int i = 0; i < 4 * ngp; i += width<T>) store<T>(dM + i, Vec<T>{});
  int a = 0;
  for (; a + width<T> <= p.axis; a += width<T>) add_gram_gradient(p, a, dM, dD, M);
  for (; a < p.axis; ++a)
    for (int x = 0; x < 4; ++x) {
      T acc = 0;
      for (int c = 0; c < p.ng; ++c) {
        const T g = dD[static_cast<long>(c) * p.axis + a];
        acc += g * M[x * ngp + c];
        dM[x * ngp + c] += g * M[x * ngp + a];
      }
      dM[x * ngp + a] += acc;
    }
}

/// M (4, ngp) from plain sums over the edges to what `moments` gives.
template <class T>
void finish_moments(const RepinitParams<T>& p, T* M, const RepinitPad<T>& pad) {
  const int ngp = padded<T>(p.ng);
  for (int x = 0; x < 4; ++x)
    for (int c = 0; c < ngp; ++c) {
      M[x * ngp + c] *= p.inv_nsel;
      if (pad.G != nullptr && c < p.ng) M[x * ngp + c] += pad.weight * pad.R[x] * pad.G[c];
    }
}

/// The edges of a centre in the groups of the table; false when the network has to be evaluated.
template <class T, class Isa>
bool tabulated(const RepinitParams<T>& p, int n, const T* s, const int* combination, SeriesGroups<T>& groups, Arena& arena) {
  if (p.table == nullptr) return false;
  int* curve = arena.take<int>(n);
  for (int e = 0; e < n; ++e) curve[e] = p.net.typed ? combination[e] : 0;
  return Tabulate<T, Isa>::group(*p.table, n, s, curve, combination, p.ncombinations, groups, arena);
}

/// f (4 or 8, npositions): R, and with a gate R times the gate's switch, at the positions of the groups.
template <class T>
void gather(const RepinitParams<T>& p, int m, T* f, const T* R, const T* sw, const SeriesGroups<T>& groups) {
  const int np = groups.npositions;
  for (int q = 0; q < np; ++q) {
    const int e = groups.order[q];
    const T gate = e >= 0 && p.gate_switch ? sw[e] : T(1);
    for (int x = 0; x < 4; ++x) {
      const T r = e >= 0 ? R[x * m + e] : T(0);
      f[x * np + q] = r;
      if (p.gate != nullptr) f[(4 + x) * np + q] = r * gate;
    }
  }
}

/// M (4, ngp) as in `moments`, group by group: B (4 or 8, K) = sum of f times the series terms, then one product with the series.
template <class T, class Isa>
void tabulated_moments(const RepinitParams<T>& p, T* M, const T* f, const SeriesGroups<T>& groups, const RepinitPad<T>& pad, Arena& arena) {
  const Arena::Mark mark = arena.mark();
  constexpr int K = series_terms<T>;
  const int ngp = padded<T>(p.ng), rows = p.gate != nullptr ? 8 : 4;
  T* B = arena.take<T>(8L * K);
  T* Y = arena.take<T>(8L * ngp);
  for (long c = 0; c < 4L * ngp; ++c) M[c] = T(0);
  for (int g = 0; g < groups.ngroups; ++g) {
    Tabulate<T, Isa>::sums(groups, g, rows, B, f, groups.npositions);
    const T* a = p.table->a + static_cast<long>(groups.interval[g]) * K * ngp;
    if (p.gate == nullptr) {
      Linear<T, Isa>::run(4, ngp, K, M, ngp, B, K, 1, a, ngp, simd::pad<T>, nullptr, true);
      continue;
    }
    Linear<T, Isa>::run(8, ngp, K, Y, ngp, B, K, 1, a, ngp, simd::pad<T>, nullptr, false);
    const T* gate = p.gate + static_cast<long>(groups.key[g]) * p.ng;
    for (int x = 0; x < 4; ++x)
      for (int c = 0; c < p.ng; ++c) M[x * ngp + c] += Y[x * ngp + c] + gate[c] * Y[(4 + x) * ngp + c];
  }
  finish_moments(p, M, pad);
  arena.release(mark);
}

/// dR (4, m) +=, dsw (m) +=, given dM (4, ngp).
template <class T, class Isa>
void tabulated_backward(const RepinitParams<T>& p, int m, T* dR, T* dsw, const T* dM, const T* f, const T* sw,
                        const SeriesGroups<T>& groups, Arena& arena) {
  const Arena::Mark mark = arena.mark();
  constexpr int K = series_terms<T>;
  const int ngp = padded<T>(p.ng), rows = p.gate != nullptr ? 8 : 4, np = groups.npositions;
  T* dY = arena.take<T>(8L * ngp);
  T* dB = arena.take<T>(8L * K);
  T* v = arena.take<T>(8L * np);
  T* dv = arena.take<T>(8L * np);
  for (long c = 0; c < 4L * ngp; ++c) dY[c] = dM[c] * p.inv_nsel;
  for (int g = 0; g < groups.ngroups; ++g) {
    if (p.gate != nullptr) {
      const T* gate = p.gate + static_cast<long>(groups.key[g]) * p.ng;
      for (int x = 0; x < 4; ++x)
        for (int c = 0; c < ngp; ++c) dY[(4 + x) * ngp + c] = c < p.ng ? dY[x * ngp + c] * gate[c] : T(0);
    }
    Linear<T, Isa>::run(rows, K, ngp, dB, K, dY, ngp, 1, p.table->at + static_cast<long>(groups.interval[g]) * K * ngp, K, simd::pad<T>,
                        nullptr, false);
    Tabulate<T, Isa>::values(*p.table, groups, g, rows, v, dv, np, dB);
  }
  for (int q = 0; q < np; ++q) {
    const int e = groups.order[q];
    if (e < 0) continue;
    T ds = 0, from_gate = 0;
    const T gate = p.gate_switch ? sw[e] : T(1);
    for (int x = 0; x < 4; ++x) {
      T dr = v[x * np + q];
      ds += f[x * np + q] * dv[x * np + q];
      if (p.gate != nullptr) {
        dr += gate * v[(4 + x) * np + q];
        ds += f[(4 + x) * np + q] * dv[(4 + x) * np + q];
        from_gate += f[x * np + q] * v[(4 + x) * np + q];
      }
      dR[x * m + e] += dr;
    }
    dR[e] += ds;
    if (p.gate != nullptr && p.gate_switch) dsw[e] += from_gate;
  }
  arena.release(mark);
}

/// The intervals of n edges in the table of a compressed model.
template <class T, class Isa>
QuinticArguments<T> located(const RepinitParams<T>& p, int n, const T* s, const int* combination, Arena& arena) {
  int* curve = arena.take<int>(n);
  for (int e = 0; e < n; ++e) curve[e] = p.net.typed ? combination[e] : 0;
  QuinticArguments<T> at;
  Quintic<T, Isa>::locate(*p.quintic, n, s, curve, at, arena);
  return at;
}

template <class T>
QuinticGate<T> quintic_gate(const RepinitParams<T>& p, const T* sw, const int* combination) {
  return {p.gate_rows, combination, p.gate_switch ? sw : nullptr};
}

/// M (4, ngp) as in `moments`.
template <class T, class Isa>
void quintic_moments(const RepinitParams<T>& p, int n, int m, T* M, const T* R, const QuinticArguments<T>& at, const QuinticGate<T>& gate,
                     const RepinitPad<T>& pad) {
  for (long c = 0; c < 4L * padded<T>(p.ng); ++c) M[c] = T(0);
  Quintic<T, Isa>::moments(*p.quintic, n, 4, M, R, m, at, gate);
  finish_moments(p, M, pad);
}

/// dR (4, m) +=, dsw (m) +=, given dD (ng*axis).
template <class T, class Isa>
void quintic_backward(const RepinitParams<T>& p, int n, int m, T* dR, T* dsw, const T* dD, const T* R, const T* sw, const int* combination,
                      const RepinitPad<T>& pad, Arena& arena) {
  const int ngp = padded<T>(p.ng);
  T* M = arena.take<T>(4L * ngp);
  T* dM = arena.take<T>(4L * ngp);
  T* dr = arena.take<T>(4L * m);
  T* ds = arena.take<T>(n);
  T* from_gate = arena.take<T>(n);
  const QuinticArguments<T> at = located<T, Isa>(p, n, R, combination, arena);
  const QuinticGate<T> gate = quintic_gate(p, sw, combination);
  quintic_moments<T, Isa>(p, n, m, M, R, at, gate, pad);
  gram_backward(p, dM, dD, M);
  for (long c = 0; c < 4L * ngp; ++c) dM[c] *= p.inv_nsel;
  Quintic<T, Isa>::moments_backward(*p.quintic, n, 4, dr, ds, from_gate, dM, R, m, at, gate);
  for (int e = 0; e < n; ++e) {
    for (int x = 0; x < 4; ++x) dR[x * m + e] += dr[x * m + e];
    dR[e] += ds[e];
    if (p.gate != nullptr && p.gate_switch) dsw[e] += from_gate[e];
  }
}

}  // namespace

template <class T, class Isa>
void Repinit<T, Isa>::embed(const RepinitParams<T>& p, int m, T** G, const T* s, const T* sw, const int* combination, Arena& arena) {
  EmbeddingTape<T> tape;
  EmbeddingNetOp<T, Isa>::layout(p.net, m, false, arena, tape);
  *G = tape.y[p.net.nlayers - 1];
  if (p.quintic != nullptr)
    Quintic<T, Isa>::values(*p.quintic, p.ng, m, *G, located<T, Isa>(p, m, s, combination, arena));
  else
    EmbeddingNetOp<T, Isa>::forward(p.net, m, tape, false, s, combination);
  if (p.gate != nullptr) apply_gate(p, m, *G, *G, sw, combination);
}

template <class T, class Isa>
void Repinit<T, Isa>::forward(const RepinitParams<T>& p, int n, int m, T* D, T* M, const T* R, const T* sw, const int* combination,
                              const RepinitPad<T>& pad, Arena& arena) {
  const Arena::Mark mark = arena.mark();
  SeriesGroups<T> groups;
  if (p.quintic != nullptr) {
    quintic_moments<T, Isa>(p, n, m, M, R, located<T, Isa>(p, n, R, combination, arena), quintic_gate(p, sw, combination), pad);
  } else if (tabulated<T, Isa>(p, n, R, combination, groups, arena)) {
    T* f = arena.take<T>(8L * groups.npositions);
    gather(p, m, f, R, sw, groups);
    tabulated_moments<T, Isa>(p, M, f, groups, pad, arena);
  } else {
    T* G = nullptr;
    embed(p, m, &G, R, sw, combination, arena);
    moments(p, m, M, R, G, pad);
  }
  gram(p, D, M);
  arena.release(mark);
}

template <class T, class Isa>
void Repinit<T, Isa>::backward(const RepinitParams<T>& p, int n, int m, T* dR, T* dsw, const T* dD, const T* R, const T* sw,
                               const int* combination, const RepinitPad<T>& pad, Arena& arena) {
  const Arena::Mark mark = arena.mark();
  if (p.quintic != nullptr) {
    quintic_backward<T, Isa>(p, n, m, dR, dsw, dD, R, sw, combination, pad, arena);
    arena.release(mark);
    return;
  }
  const int ngp = padded<T>(p.ng);
  T* M = arena.take<T>(4L * ngp);
  T* dM = arena.take<T>(4L * ngp);
  SeriesGroups<T> groups;
  if (tabulated<T, Isa>(p, n, R, combination, groups, arena)) {
    T* f = arena.take<T>(8L * groups.npositions);
    gather(p, m, f, R, sw, groups);
    tabulated_moments<T, Isa>(p, M, f, groups, pad, arena);
    gram_backward(p, dM, dD, M);
    tabulated_backward<T, Isa>(p, m, dR, dsw, dM, f, sw, groups, arena);
    arena.release(mark);
    return;
  }
  EmbeddingTape<T> tape;
  EmbeddingNetOp<T, Isa>::layout(p.net, m, true, arena, tape);
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
  gram_backward(p, dM, dD, M);
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
  EmbeddingNetOp<T, Isa>::backward(p.net, m, ds, nullptr, dG, tape, R, combination, arena);
  for (int e = 0; e < m; ++e) dR[e] += ds[e];
  arena.release(mark);
}

DPA2_INSTANTIATE(Repinit)

}  // namespace dpa2
