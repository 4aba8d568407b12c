#include "cpu/repinit.hpp"

#include "cpu/repinit_tables.hpp"
#include "cpu/simd.hpp"
#include "cpu/type_rows.hpp"

namespace dpa2 {

using simd::load;
using simd::splat;
using simd::store;
using simd::sum;
using simd::Vec;
using simd::width;

namespace {

/// G (ng, m) = net (ng, m) times its factor; they may be the same.
template <Gate kind, class T>
void apply_gate(const RepinitParams<Real<T>>& p, int m, T* G, const T* net, const T* sw, const int* combination) {
  using R = Real<T>;
  const int ngp = padded<T>(p.ng);
  for (int e = 0; e < m; e += width<T>) {
    const Vec<T> switches = load<T>(sw + e);
    for (int c0 = 0; c0 < p.ng; c0 += width<T>) {
      Vec<R> gate[width<T>];
      gather_rows<R>(gate, p.gate + c0, ngp, combination + e);
      const int channels = p.ng - c0 < width<T> ? p.ng - c0 : width<T>;
      for (int i = 0; i < channels; ++i) {
        const long k = static_cast<long>(c0 + i) * m + e;
        store<T>(G + k, load<T>(net + k) * gate_factor<kind, T>(gate[i], switches));
      }
    }
  }
}

template <class T>
void apply_gate(const RepinitParams<Real<T>>& p, int m, T* G, const T* net, const T* sw, const int* combination) {
  if (p.gate_switch)
    apply_gate<Gate::smooth, T>(p, m, G, net, sw, combination);
  else
    apply_gate<Gate::types, T>(p, m, G, net, sw, combination);
}

/// M (4, ngp) = (1/nsel) sum_e R_e G_e + the padded slots.
template <class T>
void moments(const RepinitParams<Real<T>>& p, int m, T* M, const T* R, const T* G, const RepinitPad<Real<T>>& pad) {
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
void gram(const RepinitParams<Real<T>>& p, T* D, const T* M) {
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
void add_gram_gradient(const RepinitParams<Real<T>>& p, int a, T* dM, const T* dD, const T* M) {
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

/// dM (4, ngp) = , given dD and dV, or null; zero in the padding, if that of dV is.
template <class T>
void gram_backward(const RepinitParams<Real<T>>& p, T* dM, const T* dD, const T* dV, const T* M) {
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
  for (int i = 0; dV != nullptr && i < 3 * ngp; ++i) dM[ngp + i] += dV[i];
}

/// The gradient of the padded slots' embedding, given dM.
template <class T>
void pad_gradient(const RepinitParams<Real<T>>& p, Real<T>* dG, const T* dM, const RepinitPad<Real<T>>& pad) {
  const int ngp = padded<T>(p.ng);
  for (int c = 0; c < p.ng; ++c) {
    Real<T> acc = 0;
    for (int x = 0; x < 4; ++x) acc += pad.R[x] * math::gradient_of(dM[x * ngp + c]);
    dG[c] += pad.weight * acc;
  }
}

/// What the edges get of the moments.
template <class T>
struct EdgeGradients {
  T* dnet;        ///< (ng, m) =
  T *dR, *dsw;    ///< (4, m), (m) +=, or null
  Real<T>* gate;  ///< (ncombination, ngp) +=, or null
};

/// Given dM (4, ngp) and the network's values net (ng, m). `positions`: dR or dsw is wanted.
template <Gate kind, bool positions, class T>
void moments_backward(const RepinitParams<Real<T>>& p, int m, const EdgeGradients<T>& out, const T* dM, const T* R, const T* sw,
                      const int* combination, const T* net) {
  using W = Real<T>;
  const int ngp = padded<T>(p.ng);
  for (int e = 0; e < m; e += width<T>) {
    Vec<T> r[4], acc[4] = {}, switches{}, dsw{};
    for (int x = 0; x < 4; ++x) r[x] = load<T>(R + x * m + e) * p.inv_nsel;
    if constexpr (kind == Gate::smooth) {
      switches = load<T>(sw + e);
      if (out.dsw != nullptr) dsw = load<T>(out.dsw + e);
    }
    for (int c0 = 0; c0 < p.ng; c0 += width<T>) {
      [[maybe_unused]] Vec<W> gate[width<T>], dgate[width<T>] = {};
      if constexpr (kind != Gate::none) gather_rows<W>(gate, p.gate + c0, ngp, combination + e);
      const int channels = p.ng - c0 < width<T> ? p.ng - c0 : width<T>;
      for (int i = 0; i < channels; ++i) {
        const T* w = dM + c0 + i;
        const long k = static_cast<long>(c0 + i) * m + e;
        Vec<T> dg{};
#pragma GCC unroll 4
        for (int x = 0; x < 4; ++x) dg += r[x] * w[x * ngp];
        [[maybe_unused]] Vec<T> g = load<T>(net + k), dn = dg;
        if constexpr (kind != Gate::none) {
          const auto factor = gate_factor<kind, T>(gate[i], switches);
          const Vec<T> product = dg * g;
          if constexpr (kind == Gate::smooth) {
            dgate[i] = simd::gradient_of<T>(product * switches);
            if constexpr (positions) dsw += product * gate[i];
          } else {
            dgate[i] = simd::gradient_of<T>(product);
          }
          g = g * factor;
          dn = dg * factor;
        }
        store<T>(out.dnet + k, dn);
        if constexpr (positions)
#pragma GCC unroll 4
          for (int x = 0; x < 4; ++x) acc[x] += g * w[x * ngp];
      }
      if constexpr (kind != Gate::none)
        if (out.gate != nullptr) add_to_rows<W>(out.gate + c0, ngp, combination + e, dgate);
    }
    if constexpr (positions) {
      if (kind == Gate::smooth && out.dsw != nullptr) store<T>(out.dsw + e, dsw);
      if (out.dR == nullptr) continue;
      for (int x = 0; x < 4; ++x) store<T>(out.dR + x * m + e, load<T>(out.dR + x * m + e) + acc[x] * p.inv_nsel);
    }
  }
}

template <Gate kind, class T>
void moments_backward(const RepinitParams<Real<T>>& p, int m, const EdgeGradients<T>& out, const T* dM, const T* R, const T* sw,
                      const int* combination, const T* net) {
  if (out.dR != nullptr || out.dsw != nullptr)
    moments_backward<kind, true, T>(p, m, out, dM, R, sw, combination, net);
  else
    moments_backward<kind, false, T>(p, m, out, dM, R, sw, combination, net);
}

}  // namespace

template <class T, class Isa>
void Repinit<T, Isa>::embed(const RepinitParams<Real<T>>& p, int m, T** G, const T* s, const T* sw, const int* combination, Arena& arena) {
  if (p.nets != nullptr) {
    *G = arena.take<T>(static_cast<long>(p.ng) * m);
    return EmbeddingNets<T, Isa>::forward(p.nets, m, *G, s, combination, arena);
  }
  EmbeddingTape<T> tape;
  EmbeddingNetOp<T, Isa>::layout(p.net, m, false, arena, tape);
  *G = tape.y[p.net.nlayers - 1];
  bool polynomials = false;
  if constexpr (!is_dual<T>) {
    polynomials = p.quintic != nullptr;
    if (polynomials) RepinitTables<T, Isa>::values(p, m, *G, s, combination, arena);
  }
  if (!polynomials) EmbeddingNetOp<T, Isa>::forward(p.net, m, tape, false, s, combination);
  if (p.gate != nullptr) apply_gate<T>(p, m, *G, *G, sw, combination);
}

template <class T, class Isa>
void Repinit<T, Isa>::forward(const RepinitParams<Real<T>>& p, int n, int m, T* D, T* M, const T* R, const T* sw, const int* combination,
                              const RepinitPad<Real<T>>& pad, Arena& arena) {
  const Arena::Mark mark = arena.mark();
  RepinitTabulated<T> tape;
  if (!RepinitTables<T, Isa>::moments(p, n, m, M, tape, R, sw, combination, pad, arena)) {
    T* G = nullptr;
    embed(p, m, &G, R, sw, combination, arena);
    moments(p, m, M, R, G, pad);
  }
  gram(p, D, M);
  arena.release(mark);
}

template <class T, class Isa>
void Repinit<T, Isa>::backward(const RepinitParams<Real<T>>& p, int n, int m, T* dR, T* dsw, const RepinitGradient<Real<T>>* g, const T* dD,
                               const T* dV, const T* R, const T* sw, const int* combination, const RepinitPad<Real<T>>& pad, Arena& arena) {
  const Arena::Mark mark = arena.mark();
  const int ngp = padded<T>(p.ng);
  T* M = arena.take<T>(4L * ngp);
  T* dM = arena.take<T>(4L * ngp);
  RepinitTabulated<T> tabulated;
  if (RepinitTables<T, Isa>::moments(p, n, m, M, tabulated, R, sw, combination, pad, arena)) {
    gram_backward(p, dM, dD, dV, M);
    if (g != nullptr && g->pad_G != nullptr && pad.G != nullptr) pad_gradient(p, g->pad_G, dM, pad);
    RepinitTables<T, Isa>::backward(p, n, m, dR, dsw, g, dM, tabulated, R, sw, combination, arena);
    arena.release(mark);
    return;
  }
  const long size = static_cast<long>(p.ng) * m;
  if (p.nets != nullptr) {
    T *G = nullptr, *dG = arena.take<T>(size), *dS = arena.take<T>(m);
    embed(p, m, &G, R, sw, combination, arena);
    moments(p, m, M, R, G, pad);
    gram_backward(p, dM, dD, dV, M);
    moments_backward<Gate::none, T>(p, m, {dG, dR, dsw, nullptr}, dM, R, sw, combination, G);
    EmbeddingNets<T, Isa>::backward(p.nets, m, dS, dG, R, combination, arena);
    for (int e = 0; e < m; ++e) dR[e] += dS[e];
    arena.release(mark);
    return;
  }
  EmbeddingTape<T> tape;
  EmbeddingNetOp<T, Isa>::layout(p.net, m, true, arena, tape);
  T* dnet = arena.take<T>(size);
  T* gated = p.gate != nullptr ? arena.take<T>(size) : nullptr;
  T* ds = dR != nullptr ? arena.take<T>(m) : nullptr;
  EmbeddingNetOp<T, Isa>::forward(p.net, m, tape, true, R, combination);
  const T* net = tape.y[p.net.nlayers - 1];
  if (gated != nullptr) apply_gate<T>(p, m, gated, net, sw, combination);
  moments(p, m, M, R, gated != nullptr ? gated : net, pad);
  gram_backward(p, dM, dD, dV, M);
  if (g != nullptr && g->pad_G != nullptr && pad.G != nullptr) pad_gradient(p, g->pad_G, dM, pad);
  const EdgeGradients<T> out{dnet, dR, dsw, g != nullptr ? g->gate : nullptr};
  if (p.gate == nullptr)
    moments_backward<Gate::none, T>(p, m, out, dM, R, sw, combination, net);
  else if (p.gate_switch)
    moments_backward<Gate::smooth, T>(p, m, out, dM, R, sw, combination, net);
  else
    moments_backward<Gate::types, T>(p, m, out, dM, R, sw, combination, net);
  EmbeddingNetOp<T, Isa>::backward(p.net, m, ds, g != nullptr ? &g->net : nullptr, dnet, tape, R, combination, arena);
  for (int e = 0; ds != nullptr && e < m; ++e) dR[e] += ds[e];
  arena.release(mark);
}

DPA2_INSTANTIATE(Repinit)
DPA2_INSTANTIATE_DUAL(Repinit)

}  // namespace dpa2
