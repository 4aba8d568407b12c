#include "cpu/embedding_nets.hpp"

#include "cpu/simd.hpp"

namespace dpa2 {

namespace {

/// Edges first .. first + n of one network, on `lanes` lanes of their own.
template <class T>
struct Run {
  int first, n, lanes;
  T* s;      ///< (lanes), 0 where there is no edge
  int* row;  ///< (lanes) zeros: the only row of the network's tables
  EmbeddingTape<T> tape;
};

/// f(network, run) for every run of edges; memory of the arena, released after each.
template <class T, class Isa, class F>
void for_runs(const EmbeddingNet<Real<T>>* nets, int m, const T* s, const int* combination, bool grad, Arena& arena, F f) {
  for (int first = 0; first < m;) {
    const Arena::Mark mark = arena.mark();
    Run<T> run{first, 1, 0, nullptr, nullptr, {}};
    while (first + run.n < m && combination[first + run.n] == combination[first]) ++run.n;
    run.lanes = padded<T>(run.n);
    run.s = arena.take<T>(run.lanes);
    run.row = arena.take<int>(run.lanes);
    for (int e = 0; e < run.lanes; ++e) {
      run.s[e] = e < run.n ? s[first + e] : T(0);
      run.row[e] = 0;
    }
    const EmbeddingNet<Real<T>>& net = nets[combination[first]];
    EmbeddingNetOp<T, Isa>::layout(net, run.lanes, grad, arena, run.tape);
    EmbeddingNetOp<T, Isa>::forward(net, run.lanes, run.tape, grad, run.s, run.row);
    f(net, run);
    arena.release(mark);
    first += run.n;
  }
}

}  // namespace

template <class T, class Isa>
void EmbeddingNets<T, Isa>::forward(const EmbeddingNet<Real<T>>* nets, int m, T* y, const T* s, const int* combination, Arena& arena) {
  for_runs<T, Isa>(nets, m, s, combination, false, arena, [&](const EmbeddingNet<Real<T>>& net, const Run<T>& run) {
    const int out = net.layers[net.nlayers - 1].out;
    const T* from = run.tape.y[net.nlayers - 1];
    for (int c = 0; c < out; ++c)
      for (int e = 0; e < run.n; ++e) y[static_cast<long>(c) * m + run.first + e] = from[static_cast<long>(c) * run.lanes + e];
  });
}

template <class T, class Isa>
void EmbeddingNets<T, Isa>::backward(const EmbeddingNet<Real<T>>* nets, int m, T* ds, const T* dy, const T* s, const int* combination,
                                     Arena& arena) {
  for_runs<T, Isa>(nets, m, s, combination, true, arena, [&](const EmbeddingNet<Real<T>>& net, const Run<T>& run) {
    const int out = net.layers[net.nlayers - 1].out;
    T* own = arena.take<T>(static_cast<long>(out) * run.lanes);
    T* own_ds = arena.take<T>(run.lanes);
    for (int c = 0; c < out; ++c)
      for (int e = 0; e < run.lanes; ++e)
        own[static_cast<long>(c) * run.lanes + e] = e < run.n ? dy[static_cast<long>(c) * m + run.first + e] : T(0);
    EmbeddingNetOp<T, Isa>::backward(net, run.lanes, own_ds, nullptr, own, run.tape, run.s, run.row, arena);
    for (int e = 0; e < run.n; ++e) ds[run.first + e] = own_ds[e];
  });
}

DPA2_INSTANTIATE(EmbeddingNets)
DPA2_INSTANTIATE_DUAL(EmbeddingNets)

}  // namespace dpa2
