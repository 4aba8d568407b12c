#include "cpu/three_body.hpp"

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
  return {0, arena.take<int>(chunk), arena.take<int>(chunk), arena.take<int>(chunk), arena.take<T>(chunk), arena.take<T>(chunk),
          arena.take<T>(chunk)};
}

/// Walks over all pairs and calls `run` on every full chunk; lanes beyond the last pair have weight 0.
template <class T, class Run>
void for_chunks(const ThreeBodyParams<T>& p, int n, int m, const T* v, const T* sw, const int* types, const ThreeBodyPad<T>& pad,
                Pairs<T>& pairs, Run run) {
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
  pairs.count = 0;
  for (int j = 0; j <= last; ++j) {
    const int a = j < n ? types[j] : pad.type;
    const T wj = j < n ? T(1) : pad.multiplicity;
    add(j, j, wj * wj, a, a);
    for (int k = j + 1; k <= last; ++k) {
      const int b = k < n ? types[k] : pad.type;
      const T w = wj * (k < n ? T(1) : pad.multiplicity);
      if (a == b || p.gate != nullptr) {
        add(j, k, T(2) * w, a, b);
      } else {
        add(j, k, w, a, b);
        add(j, k, w, b, a);
      }
    }
  }
  if (pairs.count == 0) return;
  const int lanes = (pairs.count + simd::pad<T> - 1) / simd::pad<T> * simd::pad<T>;
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

}  // namespace

template <class T, class Isa>
void ThreeBody<T, Isa>::forward(const ThreeBodyParams<T>& p, int n, int m, T* Q, const T* v, const T* sw, const int* types,
                                const ThreeBodyPad<T>& pad, Arena& arena) {
  const Arena::Mark mark = arena.mark();
  Pairs<T> pairs = take_pairs<T>(arena);
  EmbeddingTape<T> tape;
  EmbeddingNetOp<T, Isa>::layout(p.net, chunk, false, arena, tape);
  for (int c = 0; c < p.n3; ++c) Q[c] = T(0);
  for_chunks(p, n, m, v, sw, types, pad, pairs, [&](int lanes) {
    EmbeddingNetOp<T, Isa>::forward(p.net, lanes, tape, false, pairs.e, pairs.combination);
    const T* net = tape.y[p.net.nlayers - 1];
    for (int c = 0; c < p.n3; ++c) {
      const T* row = net + static_cast<long>(c) * lanes;
      T acc = 0;
      if (p.gate != nullptr) {
        for (int i = 0; i < lanes; ++i) acc += pairs.weight[i] * pairs.e[i] * row[i] * (T(1) + gate_factor(p, pairs, i, c));
      } else {
        Vec<T> sums{};
        for (int i = 0; i < lanes; i += width<T>)
          sums += load<T>(pairs.weight + i) * load<T>(pairs.e + i) * load<T>(row + i);
        acc = sum<T>(sums);
      }
      Q[c] += acc;
    }
  });
  for (int c = 0; c < p.n3; ++c) Q[c] *= p.inv_nsel2;
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
  for_chunks(p, n, m, v, sw, types, pad, pairs, [&](int lanes) {
    EmbeddingNetOp<T, Isa>::forward(p.net, lanes, tape, true, pairs.e, pairs.combination);
    const T* net = tape.y[p.net.nlayers - 1];
    for (int i = 0; i < lanes; ++i) de[i] = dss[i] = T(0);
    for (int c = 0; c < p.n3; ++c) {
      const T dq = dQ[c] * p.inv_nsel2;
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
    EmbeddingNetOp<T, Isa>::backward(p.net, lanes, ds, dnet, tape, arena);
    for (int i = 0; i < pairs.count; ++i) {
      const int j = pairs.j[i], k = pairs.k[i];
      const T g = de[i] + ds[i];
      for (int x = 0; x < 3; ++x) {
        const T vj = j < n ? v[x * m + j] : pad.v[x];
        const T vk = k < n ? v[x * m + k] : pad.v[x];
        if (j < n) dv[x * m + j] += g * vk;
        if (k < n) dv[x * m + k] += g * vj;
      }
      if (j < n && k < n) {
        dsw[j] += dss[i] * sw[k];
        dsw[k] += dss[i] * sw[j];
      }
    }
  });
  arena.release(mark);
}

DPA2_INSTANTIATE(ThreeBody)

}  // namespace dpa2
