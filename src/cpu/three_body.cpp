#include "cpu/three_body.hpp"

#include "cpu/simd.hpp"
#include "cpu/three_body_tables.hpp"
#include "cpu/type_rows.hpp"

namespace dpa2 {

using simd::load;
using simd::splat;
using simd::store;
using simd::sum;
using simd::Vec;
using simd::width;

namespace {

/// Runs of pairs are written in whole vectors, the last one beyond its end.
template <class T>
Pairs<T> take_pairs(Arena& arena) {
  constexpr int n = Pairs<T>::most + simd::pad<T>;
  return {0, arena.take<int>(n), arena.take<int>(n), arena.take<int>(n), arena.take<T>(n), arena.take<T>(n), arena.take<Real<T>>(n)};
}

/// Walks over all pairs and calls `run` on every full chunk; lanes beyond the last pair have weight 0. Where the two orders of the
/// types are `alike`, a pair is listed once, with the smaller type first.
template <class T, class Run>
void for_chunks(const ThreeBodyParams<Real<T>>& p, bool alike, int n, int m, const T* v, const T* sw, const int* types,
                const ThreeBodyPad<Real<T>>& pad, Pairs<T>& pairs, [[maybe_unused]] Arena& arena, Run run) {
  using R = Real<T>;
  constexpr int chunk = Pairs<T>::most;
  if constexpr (is_dual<T>) {  // runs are read in whole vectors, the last one beyond its end
    const int ld = m + simd::pad<T>;
    T* copy = arena.take<T>(4L * ld);
    for (int x = 0; x < 4; ++x)
      for (int i = 0; i < ld; ++i) copy[x * ld + i] = i >= m ? T(0) : x < 3 ? v[x * m + i] : sw[i];
    v = copy;
    sw = copy + 3L * ld;
    m = ld;
  }
  const int last = pad.multiplicity != R(0) ? n : n - 1;
  const auto add = [&](int j, int k, R weight, int a, int b) {
    const int i = pairs.count++;
    pairs.j[i] = j;
    pairs.k[i] = k;
    pairs.weight[i] = weight;
    pairs.combination[i] = a * p.ntypes + b;
    T e = 0;
    for (int x = 0; x < 3; ++x) e += (j < n ? v[x * m + j] : T(pad.v[x])) * (k < n ? v[x * m + k] : T(pad.v[x]));
    pairs.e[i] = e;
    pairs.ss[i] = j < n && k < n ? sw[j] * sw[k] : T(0);
    if (pairs.count == chunk) {
      run(chunk);
      pairs.count = 0;
    }
  };
  // The pairs of real neighbours whose orders are alike, as runs over k.
  const auto add_row = [&](int j) {
    const T v0 = v[j], v1 = v[m + j], v2 = v[2 * m + j], swj = sw[j];
    const int a = types[j];
    for (int k = j; k < n;) {
      const int at = pairs.count, size = n - k < chunk - at ? n - k : chunk - at;
      const T *x0 = v + k, *x1 = x0 + m, *x2 = x1 + m, *swk = sw + k;
      T *e = pairs.e + at, *ss = pairs.ss + at;
      R* weight = pairs.weight + at;
      int *js = pairs.j + at, *ks = pairs.k + at, *combination = pairs.combination + at;
      if constexpr (is_dual<T>) {
        for (int i = 0; i < size; i += width<T>) {
          store<T>(e + i, load<T>(x0 + i) * v0 + load<T>(x1 + i) * v1 + load<T>(x2 + i) * v2);
          store<T>(ss + i, load<T>(swk + i) * swj);
        }
      } else {
#pragma GCC ivdep
        for (int i = 0; i < size; ++i) {
          e[i] = v0 * x0[i] + v1 * x1[i] + v2 * x2[i];
          ss[i] = swj * swk[i];
        }
      }
      for (int i = 0; i < size; ++i) weight[i] = R(2);
#pragma GCC ivdep
      for (int i = 0; i < size; ++i) {
        const int b = types[k + i];
        js[i] = j;
        ks[i] = k + i;
        combination[i] = a < b ? a * p.ntypes + b : b * p.ntypes + a;
      }
      if (k == j) weight[0] = R(1);
      k += size;
      pairs.count += size;
      if (pairs.count < chunk) continue;
      run(chunk);
      pairs.count = 0;
    }
  };
  pairs.count = 0;
  for (int j = 0; j <= last; ++j) {
    const int a = j < n ? types[j] : pad.type;
    const R wj = j < n ? R(1) : pad.multiplicity;
    if (alike && j < n) {
      add_row(j);
      if (last == n) add(j, n, R(2) * pad.multiplicity, a < pad.type ? a : pad.type, a < pad.type ? pad.type : a);
      continue;
    }
    add(j, j, wj * wj, a, a);
    for (int k = j + 1; k <= last; ++k) {
      const int b = k < n ? types[k] : pad.type;
      const R w = wj * (k < n ? R(1) : pad.multiplicity);
      if (a == b) {
        add(j, k, R(2) * w, a, b);
      } else {
        add(j, k, w, a, b);
        add(j, k, w, b, a);
      }
    }
  }
  if (pairs.count == 0) return;
  const int lanes = padded<T>(pairs.count);
  for (int i = pairs.count; i < lanes; ++i) {
    pairs.e[i] = pairs.ss[i] = T(0);
    pairs.weight[i] = R(0);
    pairs.combination[i] = 0;
  }
  run(lanes);
}

/// Q (n3) += sum over the pairs of a chunk of weight e net, given net (n3, lanes).
template <Gate kind, class T>
void add_network(const ThreeBodyParams<Real<T>>& p, int lanes, const Pairs<T>& pairs, T* Q, const T* net) {
  using R = Real<T>;
  constexpr bool in_order = !is_dual<T> && kind != Gate::none;
  const int ld = padded<T>(p.n3);
  for (int c0 = 0; c0 < p.n3; c0 += width<T>) {
    const int channels = p.n3 - c0 < width<T> ? p.n3 - c0 : width<T>;
    [[maybe_unused]] Vec<T> sums[width<T>] = {};
    [[maybe_unused]] T total[width<T>] = {};
    for (int i = 0; i < lanes; i += width<T>) {
      [[maybe_unused]] Vec<R> gate[width<T>];
      if constexpr (kind != Gate::none) gather_rows<R>(gate, p.gate + c0, ld, pairs.combination + i);
      const Vec<T> e = load<R>(pairs.weight + i) * load<T>(pairs.e + i);
      [[maybe_unused]] const Vec<T> ss = load<T>(pairs.ss + i);
      for (int c = 0; c < channels; ++c) {
        const Vec<T> value = e * load<T>(net + static_cast<long>(c0 + c) * lanes + i);
        if constexpr (kind == Gate::none) {
          sums[c] += value;
        } else {
          const auto factor = gate_factor<kind, T>(gate[c], ss);
          if constexpr (in_order)
            for (int l = 0; l < width<T>; ++l) total[c] += value[l] * factor[l];
          else
            sums[c] += value * factor;
        }
      }
    }
    for (int c = 0; c < channels; ++c) {
      if constexpr (in_order)
        Q[c0 + c] += total[c];
      else
        Q[c0 + c] += sum<T>(sums[c]);
    }
  }
}

/// What the pairs of a chunk get.
template <class T>
struct PairGradients {
  T* dnet;        ///< (n3, lanes) =
  T *de, *dss;    ///< (lanes) = without what goes through the network, or both null
  Real<T>* gate;  ///< (ntypes*ntypes, n3 padded) +=, or null
};

/// Given dQ (n3) and net (n3, lanes).
template <Gate kind, bool positions, class T>
void network_backward(const ThreeBodyParams<Real<T>>& p, int lanes, const Pairs<T>& pairs, const PairGradients<T>& out, const T* dQ,
                      const T* net) {
  using R = Real<T>;
  const int ld = padded<T>(p.n3);
  for (int i = 0; i < lanes; i += width<T>) {
    const Vec<R> weight = load<R>(pairs.weight + i);
    const Vec<T> e = load<T>(pairs.e + i), ss = load<T>(pairs.ss + i);
    [[maybe_unused]] Vec<T> de{}, dss{};
    for (int c0 = 0; c0 < p.n3; c0 += width<T>) {
      const int channels = p.n3 - c0 < width<T> ? p.n3 - c0 : width<T>;
      [[maybe_unused]] Vec<R> gate[width<T>], dgate[width<T>] = {};
      if constexpr (kind != Gate::none) gather_rows<R>(gate, p.gate + c0, ld, pairs.combination + i);
      for (int c = 0; c < channels; ++c) {
        const long at = static_cast<long>(c0 + c) * lanes + i;
        const Vec<T> g = splat<T>(dQ[c0 + c] * p.inv_nsel_squared) * weight, value = load<T>(net + at);
        if constexpr (kind == Gate::none) {
          if constexpr (positions) de += g * value;
          store<T>(out.dnet + at, g * e);
        } else {
          const auto factor = gate_factor<kind, T>(gate[c], ss);
          if constexpr (positions) de += g * value * factor;
          const Vec<T> ge = g * e;
          store<T>(out.dnet + at, ge * factor);
          if constexpr (kind == Gate::smooth) {
            if constexpr (positions) dss += ge * value * gate[c];
            dgate[c] = simd::gradient_of<T>(ge * value * ss);
          } else {
            dgate[c] = simd::gradient_of<T>(ge * value);
          }
        }
      }
      if constexpr (kind != Gate::none)
        if (out.gate != nullptr) add_to_rows<R>(out.gate + c0, ld, pairs.combination + i, dgate);
    }
    if constexpr (positions) {
      store<T>(out.de + i, de);
      store<T>(out.dss + i, dss);
    }
  }
}

template <Gate kind, class T>
void network_backward(const ThreeBodyParams<Real<T>>& p, int lanes, const Pairs<T>& pairs, const PairGradients<T>& out, const T* dQ,
                      const T* net) {
  if (out.de != nullptr)
    network_backward<kind, true, T>(p, lanes, pairs, out, dQ, net);
  else
    network_backward<kind, false, T>(p, lanes, pairs, out, dQ, net);
}

/// The pairs of j with `run` neighbours from k on, whole vectors of them.
template <class T>
void scatter_run(int run, int j, int k, int m, T* dv, T* dsw, const T* de, const T* dss, const T* v, const T* sw) {
  Vec<T> own[3] = {}, own_switch{};
  for (int i = 0; i < run; i += width<T>) {
    const Vec<T> e = load<T>(de + i), s = load<T>(dss + i);
    for (int x = 0; x < 3; ++x) {
      const long at = static_cast<long>(x) * m + k + i;
      own[x] += e * load<T>(v + at);
      store<T>(dv + at, load<T>(dv + at) + e * v[static_cast<long>(x) * m + j]);
    }
    own_switch += s * load<T>(sw + k + i);
    store<T>(dsw + k + i, load<T>(dsw + k + i) + s * sw[j]);
  }
  for (int x = 0; x < 3; ++x) dv[static_cast<long>(x) * m + j] += sum<T>(own[x]);
  dsw[j] += sum<T>(own_switch);
}

/// Adds the gradients of the pairs' products and switches to those of the neighbours.
template <class T>
void scatter_pairs(const Pairs<T>& pairs, int n, int m, T* dv, T* dsw, const T* de, const T* dss, const T* v, const T* sw,
                   const ThreeBodyPad<Real<T>>& pad) {
  for (int i = 0, run = 0; i < pairs.count; i += run) {
    const int j = pairs.j[i], k = pairs.k[i];
    run = 1;
    while (i + run < pairs.count && pairs.j[i + run] == j && pairs.k[i + run] == k + run && k + run < n) ++run;
    run -= run % width<T>;
    if (run > 0) {
      scatter_run(run, j, k, m, dv, dsw, de + i, dss + i, v, sw);
      continue;
    }
    run = 1;
    for (int x = 0; x < 3; ++x) {
      const T vj = j < n ? v[x * m + j] : T(pad.v[x]);
      const T vk = k < n ? v[x * m + k] : T(pad.v[x]);
      if (j < n) dv[x * m + j] += de[i] * vk;
      if (k < n) dv[x * m + k] += de[i] * vj;
    }
    if (j < n && k < n) {
      dsw[j] += dss[i] * sw[k];
      dsw[k] += dss[i] * sw[j];
    }
  }
}

/// How the pairs of a centre are evaluated: by the series or the polynomials, or by the network; `alike` as in for_chunks.
struct Path {
  bool tabulated, alike;
};

template <class T, class Isa>
Path path(const ThreeBodyParams<Real<T>>& p, int n, int m, const T* v, const ThreeBodyPad<Real<T>>& pad) {
  const bool series = ThreeBodyTables<T, Isa>::within_series(p, n, m, v, pad);
  return {series || p.quintic != nullptr, series || p.gate != nullptr};
}

}  // namespace

template <class T, class Isa>
void ThreeBody<T, Isa>::forward(const ThreeBodyParams<Real<T>>& p, int n, int m, T* Q, const T* v, const T* sw, const int* types,
                                const ThreeBodyPad<Real<T>>& pad, Arena& arena) {
  const Arena::Mark mark = arena.mark();
  Pairs<T> pairs = take_pairs<T>(arena);
  EmbeddingTape<T> tape;
  EmbeddingNetOp<T, Isa>::layout(p.net, Pairs<T>::most, false, arena, tape);
  for (int c = 0; c < p.n3; ++c) Q[c] = T(0);
  const Path by = path<T, Isa>(p, n, m, v, pad);
  for_chunks(p, by.alike, n, m, v, sw, types, pad, pairs, arena, [&](int lanes) {
    if (by.tabulated) return ThreeBodyTables<T, Isa>::add(p, pairs, Q, arena);
    EmbeddingNetOp<T, Isa>::forward(p.net, lanes, tape, false, pairs.e, pairs.combination);
    const T* net = tape.y[p.net.nlayers - 1];
    if (p.gate == nullptr)
      add_network<Gate::none, T>(p, lanes, pairs, Q, net);
    else if (p.gate_switch)
      add_network<Gate::smooth, T>(p, lanes, pairs, Q, net);
    else
      add_network<Gate::types, T>(p, lanes, pairs, Q, net);
  });
  for (int c = 0; c < p.n3; ++c) Q[c] *= p.inv_nsel_squared;
  arena.release(mark);
}

template <class T, class Isa>
void ThreeBody<T, Isa>::backward(const ThreeBodyParams<Real<T>>& p, int n, int m, T* dv, T* dsw, const ThreeBodyGradient<Real<T>>* g,
                                 const T* dQ, const T* v, const T* sw, const int* types, const ThreeBodyPad<Real<T>>& pad, Arena& arena) {
  constexpr int most = Pairs<T>::most;
  const Arena::Mark mark = arena.mark();
  Pairs<T> pairs = take_pairs<T>(arena);
  const bool positions = dv != nullptr || dsw != nullptr;
  if (positions && (dv == nullptr || dsw == nullptr)) {  // the other one is made and thrown away
    T* unwanted = arena.take<T>(3L * m);
    for (int i = 0; i < 3 * m; ++i) unwanted[i] = T(0);
    (dv == nullptr ? dv : dsw) = unwanted;
  }
  T* de = positions ? arena.take<T>(most) : nullptr;
  T* ds = positions ? arena.take<T>(most) : nullptr;
  T* dss = positions ? arena.take<T>(most) : nullptr;
  T* dnet = arena.take<T>(static_cast<long>(p.n3) * most);
  EmbeddingTape<T> tape;
  EmbeddingNetOp<T, Isa>::layout(p.net, most, true, arena, tape);
  const PairGradients<T> out{dnet, de, dss, g != nullptr ? g->gate : nullptr};
  const Path by = path<T, Isa>(p, n, m, v, pad);
  for_chunks(p, by.alike, n, m, v, sw, types, pad, pairs, arena, [&](int lanes) {
    if (by.tabulated) {
      ThreeBodyTables<T, Isa>::backward(p, pairs, de, dss, g, dQ, arena);
      if (positions) scatter_pairs(pairs, n, m, dv, dsw, de, dss, v, sw, pad);
      return;
    }
    EmbeddingNetOp<T, Isa>::forward(p.net, lanes, tape, true, pairs.e, pairs.combination);
    const T* net = tape.y[p.net.nlayers - 1];
    if (p.gate == nullptr)
      network_backward<Gate::none, T>(p, lanes, pairs, out, dQ, net);
    else if (p.gate_switch)
      network_backward<Gate::smooth, T>(p, lanes, pairs, out, dQ, net);
    else
      network_backward<Gate::types, T>(p, lanes, pairs, out, dQ, net);
    EmbeddingNetOp<T, Isa>::backward(p.net, lanes, ds, g != nullptr ? &g->net : nullptr, dnet, tape, pairs.e, pairs.combination, arena);
    if (!positions) return;
    for (int i = 0; i < pairs.count; ++i) de[i] += ds[i];
    scatter_pairs(pairs, n, m, dv, dsw, de, dss, v, sw, pad);
  });
  arena.release(mark);
}

DPA2_INSTANTIATE(ThreeBody)
DPA2_INSTANTIATE_DUAL(ThreeBody)

}  // namespace dpa2
