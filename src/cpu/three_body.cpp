#include "cpu/three_body.hpp"

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

constexpr int chunk = 256;  // pairs that are evaluated together: the net's activations of a chunk stay in L1/L2

/// A chunk of pairs, on the lanes; the pad neighbour has index n.
template <class T>
struct Pairs {
  int count;
  int *j, *k, *combination;
  T *e, *weight, *ss;  // v_j . v_k, multiplicity of the pair, sw_j sw_k
};

template <class T>
Pairs<T> take_pairs(Arena& arena) {
  return {0,
          arena.take<int>(chunk),
          arena.take<int>(chunk),
          arena.take<int>(chunk),
          arena.take<T>(chunk),
          arena.take<T>(chunk),
          arena.take<T>(chunk)};
}

/// Whether every pair of a centre lies within the series: |v_j . v_k| is at most the square of the longest vector.
template <class T>
bool within_series(const ThreeBodyParams<T>& p, int n, int m, const T* v, const ThreeBodyPad<T>& pad) {
  if (p.table == nullptr || p.quintic != nullptr) return false;
  T longest = 0;
  bool number = true;
  for (int j = 0; j < n; ++j) {
    const T square = v[j] * v[j] + v[m + j] * v[m + j] + v[2 * m + j] * v[2 * m + j];
    longest = square > longest ? square : longest;
    number = number && square >= T(0);
  }
  const T square = pad.v[0] * pad.v[0] + pad.v[1] * pad.v[1] + pad.v[2] * pad.v[2];
  if (pad.multiplicity != T(0) && square > longest) longest = square;
  const double most = static_cast<double>(longest) * (1.0 + 1e-5);  // beyond what the products round
  return number && most < p.table->hi && -most >= p.table->lo;
}

/// Walks over all pairs and calls `run` on every full chunk; lanes beyond the last pair have weight 0. Where the two orders of the
/// types are `alike`, a pair is listed once, with the smaller type first.
template <class T, class Run>
void for_chunks(const ThreeBodyParams<T>& p, bool alike, int n, int m, const T* v, const T* sw, const int* types,
                const ThreeBodyPad<T>& pad, Pairs<T>& pairs, Run run) {
  const int last = pad.multiplicity != T(0) ? n : n - 1;
  const auto add = [&](int j, int k, T weight, int a, int b) {
    const int i = pairs.count++;
    pairs.j[i] = j;
    pairs.k[i] = k;
    pairs.weight[i] = weight;
    pairs.combination[i] = a * p.ntypes + b;
    T e = 0;
    for (int x = 0; x < 3; ++x) e += (j < n ? v[x * m + j] : pad.v[x]) * (k < n ? v[x * m + k] : pad.v[x]);
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
      T *e = pairs.e + at, *ss = pairs.ss + at, *weight = pairs.weight + at;
      int *js = pairs.j + at, *ks = pairs.k + at, *combination = pairs.combination + at;
#pragma GCC ivdep
      for (int i = 0; i < size; ++i) {
        e[i] = v0 * x0[i] + v1 * x1[i] + v2 * x2[i];
        ss[i] = swj * swk[i];
        weight[i] = T(2);
      }
#pragma GCC ivdep
      for (int i = 0; i < size; ++i) {
        const int b = types[k + i];
        js[i] = j;
        ks[i] = k + i;
        combination[i] = a < b ? a * p.ntypes + b : b * p.ntypes + a;
      }
      if (k == j) weight[0] = T(1);
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
    const T wj = j < n ? T(1) : pad.multiplicity;
    if (alike && j < n) {
      add_row(j);
      if (last == n) add(j, n, T(2) * pad.multiplicity, a < pad.type ? a : pad.type, a < pad.type ? pad.type : a);
      continue;
    }
    add(j, j, wj * wj, a, a);
    for (int k = j + 1; k <= last; ++k) {
      const int b = k < n ? types[k] : pad.type;
      const T w = wj * (k < n ? T(1) : pad.multiplicity);
      if (a == b) {
        add(j, k, T(2) * w, a, b);
      } else {
        add(j, k, w, a, b);
        add(j, k, w, b, a);
      }
    }
  }
  if (pairs.count == 0) return;
  const int lanes = padded<T>(pairs.count);
  for (int i = pairs.count; i < lanes; ++i) {
    pairs.e[i] = pairs.weight[i] = pairs.ss[i] = T(0);
    pairs.combination[i] = 0;
  }
  run(lanes);
}

template <class T>
DPA2_INLINE T gate_factor(const ThreeBodyParams<T>& p, const Pairs<T>& pairs, int i, int c) {
  const T g = p.gate[static_cast<long>(pairs.combination[i]) * p.n3 + c];
  return p.gate_switch ? g * pairs.ss[i] : g;
}

/// The pairs of a chunk, all of them within the series, in the groups of the table.
template <class T, class Isa>
void group(const ThreeBodyParams<T>& p, const Pairs<T>& pairs, SeriesGroups<T>& groups, Arena& arena) {
  int* curve = arena.take<int>(pairs.count);
  for (int i = 0; i < pairs.count; ++i) curve[i] = p.net.typed ? pairs.combination[i] : 0;
  Tabulate<T, Isa>::group(*p.table, pairs.count, pairs.e, curve, pairs.combination, p.ntypes * p.ntypes, groups, arena);
}

/// Q (n3) += sum of the pairs: per group, B (2, K) = sum of weight e (times ss for the gate) T_k, then one product with the series.
template <class T, class Isa>
void add_tabulated(const ThreeBodyParams<T>& p, const Pairs<T>& pairs, T* Q, const SeriesGroups<T>& groups, Arena& arena) {
  const Arena::Mark mark = arena.mark();
  constexpr int K = series_terms<T>;
  const int nc = p.table->nc, rows = p.gate != nullptr ? 2 : 1, np = groups.npositions;
  T* f = arena.take<T>(2L * np);
  T* B = arena.take<T>(2L * K);
  T* Y = arena.take<T>(2L * nc);
  for (int q = 0; q < np; ++q) {
    const int i = groups.order[q];
    f[q] = i >= 0 ? pairs.weight[i] * pairs.e[i] : T(0);
    f[np + q] = i >= 0 && p.gate_switch ? f[q] * pairs.ss[i] : f[q];
  }
  for (int g = 0; g < groups.ngroups; ++g) {
    Tabulate<T, Isa>::sums(groups, g, rows, B, f, np);
    Linear<T, Isa>::run(rows, nc, K, Y, nc, B, K, 1, p.table->a + static_cast<long>(groups.interval[g]) * K * nc, nc, simd::pad<T>, nullptr,
                        false);
    const T* gate = p.gate != nullptr ? p.gate + static_cast<long>(groups.key[g]) * p.n3 : nullptr;
    for (int c = 0; c < p.n3; ++c) Q[c] += gate != nullptr ? Y[c] + gate[c] * Y[nc + c] : Y[c];
  }
  arena.release(mark);
}

/// de (total derivative with respect to e) and dss of every pair, given dQ (n3): with the channels contracted first, a group is
/// one scalar series (two with a gate).
template <class T, class Isa>
void tabulated_backward(const ThreeBodyParams<T>& p, const Pairs<T>& pairs, T* de, T* dss, const T* dQ, const SeriesGroups<T>& groups,
                        Arena& arena) {
  const Arena::Mark mark = arena.mark();
  constexpr int K = series_terms<T>;
  const int nc = p.table->nc, rows = p.gate != nullptr ? 2 : 1, np = groups.npositions;
  T* dY = arena.take<T>(2L * nc);
  T* b = arena.take<T>(2L * K);
  T* v = arena.take<T>(2L * np);
  T* dv = arena.take<T>(2L * np);
  for (int c = 0; c < 2 * nc; ++c) dY[c] = c < p.n3 ? dQ[c] * p.inv_nsel_squared : T(0);
  for (int g = 0; g < groups.ngroups; ++g) {
    if (p.gate != nullptr)
      for (int c = 0; c < p.n3; ++c) dY[nc + c] = dY[c] * p.gate[static_cast<long>(groups.key[g]) * p.n3 + c];
    Linear<T, Isa>::run(rows, K, nc, b, K, dY, nc, 1, p.table->at + static_cast<long>(groups.interval[g]) * K * nc, K, simd::pad<T>,
                        nullptr, false);
    Tabulate<T, Isa>::values(*p.table, groups, g, rows, v, dv, np, b);
  }
  for (int q = 0; q < np; ++q) {
    const int i = groups.order[q];
    if (i < 0) continue;
    const T w = pairs.weight[i], e = pairs.e[i];
    de[i] = w * (v[q] + e * dv[q]);
    dss[i] = T(0);
    if (p.gate == nullptr) continue;
    const T factor = p.gate_switch ? pairs.ss[i] : T(1);
    de[i] += w * factor * (v[np + q] + e * dv[np + q]);
    if (p.gate_switch) dss[i] = w * e * v[np + q];
  }
  arena.release(mark);
}

/// The pairs of a chunk in the table of a compressed model: r (count) = weight e, and where they lie.
template <class T, class Isa>
QuinticArguments<T> located(const ThreeBodyParams<T>& p, const Pairs<T>& pairs, T* r, Arena& arena) {
  int* curve = arena.take<int>(pairs.count);
  for (int i = 0; i < pairs.count; ++i) {
    curve[i] = p.net.typed ? pairs.combination[i] : 0;
    r[i] = pairs.weight[i] * pairs.e[i];
  }
  QuinticArguments<T> at;
  Quintic<T, Isa>::locate(*p.quintic, pairs.count, pairs.e, curve, at, arena);
  return at;
}

template <class T>
QuinticGate<T> quintic_gate(const ThreeBodyParams<T>& p, const Pairs<T>& pairs) {
  return {p.gate_rows, pairs.combination, p.gate_switch ? pairs.ss : nullptr};
}

/// Q (n3) += sum of the pairs.
template <class T, class Isa>
void add_quintic(const ThreeBodyParams<T>& p, const Pairs<T>& pairs, T* Q, Arena& arena) {
  const Arena::Mark mark = arena.mark();
  T* Y = arena.take<T>(p.quintic->nc);
  T* r = arena.take<T>(pairs.count);
  for (int c = 0; c < p.quintic->nc; ++c) Y[c] = T(0);
  const QuinticArguments<T> at = located<T, Isa>(p, pairs, r, arena);
  Quintic<T, Isa>::moments(*p.quintic, pairs.count, 1, Y, r, pairs.count, at, quintic_gate(p, pairs));
  for (int c = 0; c < p.n3; ++c) Q[c] += Y[c];
  arena.release(mark);
}

/// de (total derivative with respect to e) and dss of every pair, given dQ (n3).
template <class T, class Isa>
void quintic_backward(const ThreeBodyParams<T>& p, const Pairs<T>& pairs, T* de, T* dss, const T* dQ, Arena& arena) {
  const Arena::Mark mark = arena.mark();
  T* dY = arena.take<T>(p.quintic->nc);
  T* r = arena.take<T>(pairs.count);
  T* dr = arena.take<T>(pairs.count);
  for (int c = 0; c < p.quintic->nc; ++c) dY[c] = c < p.n3 ? dQ[c] * p.inv_nsel_squared : T(0);
  const QuinticArguments<T> at = located<T, Isa>(p, pairs, r, arena);
  Quintic<T, Isa>::moments_backward(*p.quintic, pairs.count, 1, dr, de, dss, dY, r, pairs.count, at, quintic_gate(p, pairs));
  for (int i = 0; i < pairs.count; ++i) {
    de[i] += pairs.weight[i] * dr[i];
    if (p.gate == nullptr || !p.gate_switch) dss[i] = T(0);
  }
  arena.release(mark);
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
                   const ThreeBodyPad<T>& pad) {
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
      const T vj = j < n ? v[x * m + j] : pad.v[x];
      const T vk = k < n ? v[x * m + k] : pad.v[x];
      if (j < n) dv[x * m + j] += de[i] * vk;
      if (k < n) dv[x * m + k] += de[i] * vj;
    }
    if (j < n && k < n) {
      dsw[j] += dss[i] * sw[k];
      dsw[k] += dss[i] * sw[j];
    }
  }
}

}  // namespace

template <class T, class Isa>
void ThreeBody<T, Isa>::forward(const ThreeBodyParams<T>& p, int n, int m, T* Q, const T* v, const T* sw, const int* types,
                                const ThreeBodyPad<T>& pad, Arena& arena) {
  const Arena::Mark mark = arena.mark();
  Pairs<T> pairs = take_pairs<T>(arena);
  EmbeddingTape<T> tape;
  EmbeddingNetOp<T, Isa>::layout(p.net, chunk, false, arena, tape);
  for (int c = 0; c < p.n3; ++c) Q[c] = T(0);
  const bool series = within_series(p, n, m, v, pad);
  for_chunks(p, series || p.gate != nullptr, n, m, v, sw, types, pad, pairs, [&](int lanes) {
    const Arena::Mark chunk_mark = arena.mark();
    if (p.quintic != nullptr) {
      add_quintic<T, Isa>(p, pairs, Q, arena);
      return;
    }
    if (series) {
      SeriesGroups<T> groups;
      group<T, Isa>(p, pairs, groups, arena);
      add_tabulated<T, Isa>(p, pairs, Q, groups, arena);
      arena.release(chunk_mark);
      return;
    }
    EmbeddingNetOp<T, Isa>::forward(p.net, lanes, tape, false, pairs.e, pairs.combination);
    const T* net = tape.y[p.net.nlayers - 1];
    for (int c = 0; c < p.n3; ++c) {
      const T* row = net + static_cast<long>(c) * lanes;
      T acc = 0;
      if (p.gate != nullptr) {
        for (int i = 0; i < lanes; ++i) acc += pairs.weight[i] * pairs.e[i] * row[i] * (T(1) + gate_factor(p, pairs, i, c));
      } else {
        Vec<T> sums{};
        for (int i = 0; i < lanes; i += width<T>) sums += load<T>(pairs.weight + i) * load<T>(pairs.e + i) * load<T>(row + i);
        acc = sum<T>(sums);
      }
      Q[c] += acc;
    }
  });
  for (int c = 0; c < p.n3; ++c) Q[c] *= p.inv_nsel_squared;
  arena.release(mark);
}

template <class T, class Isa>
void ThreeBody<T, Isa>::backward(const ThreeBodyParams<T>& p, int n, int m, T* dv, T* dsw, const T* dQ, const T* v, const T* sw,
                                 const int* types, const ThreeBodyPad<T>& pad, Arena& arena) {
  const Arena::Mark mark = arena.mark();
  Pairs<T> pairs = take_pairs<T>(arena);
  T* de = arena.take<T>(chunk);
  T* ds = arena.take<T>(chunk);
  T* dss = arena.take<T>(chunk);
  T* dnet = arena.take<T>(static_cast<long>(p.n3) * chunk);
  EmbeddingTape<T> tape;
  EmbeddingNetOp<T, Isa>::layout(p.net, chunk, true, arena, tape);
  const bool series = within_series(p, n, m, v, pad);
  for_chunks(p, series || p.gate != nullptr, n, m, v, sw, types, pad, pairs, [&](int lanes) {
    const Arena::Mark chunk_mark = arena.mark();
    if (p.quintic != nullptr) {
      quintic_backward<T, Isa>(p, pairs, de, dss, dQ, arena);
      scatter_pairs(pairs, n, m, dv, dsw, de, dss, v, sw, pad);
      return;
    }
    if (series) {
      SeriesGroups<T> groups;
      group<T, Isa>(p, pairs, groups, arena);
      tabulated_backward<T, Isa>(p, pairs, de, dss, dQ, groups, arena);
      scatter_pairs(pairs, n, m, dv, dsw, de, dss, v, sw, pad);
      arena.release(chunk_mark);
      return;
    }
    EmbeddingNetOp<T, Isa>::forward(p.net, lanes, tape, true, pairs.e, pairs.combination);
    const T* net = tape.y[p.net.nlayers - 1];
    for (int i = 0; i < lanes; ++i) de[i] = dss[i] = T(0);
    for (int c = 0; c < p.n3; ++c) {
      const T dq = dQ[c] * p.inv_nsel_squared;
      const T* row = net + static_cast<long>(c) * lanes;
      T* drow = dnet + static_cast<long>(c) * lanes;
      for (int i = 0; i < lanes; ++i) {
        const T g = dq * pairs.weight[i];
        const T factor = p.gate != nullptr ? T(1) + gate_factor(p, pairs, i, c) : T(1);
        de[i] += g * row[i] * factor;
        drow[i] = g * pairs.e[i] * factor;
        if (p.gate != nullptr && p.gate_switch)
          dss[i] += g * pairs.e[i] * row[i] * p.gate[static_cast<long>(pairs.combination[i]) * p.n3 + c];
      }
    }
    EmbeddingNetOp<T, Isa>::backward(p.net, lanes, ds, nullptr, dnet, tape, pairs.e, pairs.combination, arena);
    for (int i = 0; i < pairs.count; ++i) de[i] += ds[i];
    scatter_pairs(pairs, n, m, dv, dsw, de, dss, v, sw, pad);
  });
  arena.release(mark);
}

DPA2_INSTANTIATE(ThreeBody)

}  // namespace dpa2
