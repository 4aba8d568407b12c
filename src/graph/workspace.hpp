// Every buffer of an evaluation, sized from the edges and reused between steps.
//
// Kept between forward and backward, in the precision of the model (n1, n2 padded widths; edges of the repformer list):
//
//   what                               per atom                     per repformer edge
//   g1 before every layer              nlayers n1
//   derivative of phi at the entry     n1
//   derivative of phi in linear1       (nlayers - 1) n1
//   g2 before every `keep`-th layer                                 (nlayers - 1) / keep * n2
//   h2 before every layer                                           3 (3 nlayers with update_h2)
//   switch, scalar of the embedding                                 2
// and, if `generous`,
//   derivative of phi in the self MLP  (nlayers - 1) n1
//   derivative of phi in linear2                                    (nlayers - 1) n2
//   LayerNorm's output and 1/sigma                                  (nlayers - 1) (n2 + 1)
//
// and, for gradients of weights, what the layers' products have seen and their updates (NodeTerms in pass.hpp), and [D, Q].
//
// Everything else (repinit's activations, attention scores, moments, projections, the first g2) is recomputed per centre in
// the backward from these, in the scratch memory of the thread; what the last layer and the heads leave is used up tile by
// tile. `generous` spares the backward products that it would have to repeat; it is for systems so small that nobody will
// miss the memory (generous_limit). `keep` is 1 where that fits into the memory there is, and else the smallest interval that
// does (pair_features.hpp, plan.hpp). Without a backward nothing is kept: g1 takes turns in the memory of two layers and g2 is
// updated in place. `Workspace::table` below is the one place that states the sizes; buffers are made from it, and the memory
// that an evaluation will need is counted by it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "cpu/arena.hpp"
#include "graph/buffer.hpp"
#include "graph/extent.hpp"
#include "graph/pair_features.hpp"
#include "graph/parallel.hpp"

namespace dpa2 {

template <class T>
struct Workspace {
  std::vector<std::unique_ptr<Arena>> arenas;  ///< one per thread
  Partition partition;
  Extent extent;
  Buffer<std::int64_t> start_repformer;  ///< (nlocal + 1): first repformer edge of a centre

  // kept between forward and backward
  Layers<T> g1;                    ///< [nlayers or 2] (nall, n1), see `g1_before`
  Buffer<T> dphi_entry;            ///< (nlocal, n1)
  Layers<T> dphi_lin;              ///< [nlayers - 1] (nlocal, n1)
  PairFeatures<T> pairs;           ///< g2 and its gradient
  Layers<T> dphi_self, dphi_lin2;  ///< [nlayers - 1] (nlocal, n1), (nedge_repformer, n2), if `generous`
  Layers<T> norm, inv_sigma;       ///< [nlayers - 1] (nedge_repformer, n2), (nedge_repformer), if `generous`
  Layers<T> h2;                    ///< [nlayers or 2 or 1] (nedge_repformer, 3), see `h2_before`
  // for gradients of weights: [nlayers - 1] (nlocal, .) as in NodeTerms; (nlocal, nd)
  Layers<T> cat, heads, self, conv, linear1, attention;
  Buffer<T> D;
  Buffer<T> w, x;  ///< (nedge_repformer): switch or 1; input of the g2 embedding
  Buffer<T> fall;  ///< (nedge_repformer): 1 - switch, for attention in float32 (by_fall), else empty

  // the backward
  Buffer<T> dg1, dh2, dw;                                  ///< (nall, n1), (nedge_repformer, 3), (nedge_repformer)
  std::vector<Buffer<T>> acc;                              ///< per thread (rows, n1): what the thread adds to dg1
  std::vector<Buffer<double>> force, atom_virial, virial;  ///< per thread (rows, 3), (rows, 9), (9)

  // of those who use the descriptor
  Buffer<double> values;          ///< (nlocal, values): what is made of an atom's descriptor
  Buffer<double> gamma[4], seed;  ///< (nedge, 3), (nlocal), only for deepmd-kit's atomic virial

  /// Of the repformer's edges from this one on, or null.
  T* fall_from(std::int64_t edge) noexcept { return extent.fall ? fall.data() + edge : nullptr; }
  /// g1 before a layer: each has its own for a backward, else two take turns.
  T* g1_before(int layer) noexcept { return g1[turn(layer)]; }
  /// h2 before a layer: likewise, or the same for all layers where none updates it.
  T* h2_before(int layer) noexcept { return h2[extent.update_h2 ? turn(layer) : 0]; }

  /// f(array, elements, copies) for every array that an evaluation of this extent uses; a Buffer has one copy.
  template <class F>
  void table(const Extent& e, F f) {
    const Count atoms = e.nlocal * e.n1, rows = e.nall * e.n1, g = e.gradient ? 1 : 0;
    const int last = e.nlayers - 1, turns = e.gradient ? e.nlayers : std::min(e.nlayers, 2);
    f(start_repformer, e.nlocal + 1, 1);
    f(g1, rows, turns);
    f(dphi_entry, atoms * g, 1);
    f(dphi_lin, atoms * g, last);
    pairs.table(e, f);
    f(dphi_self, e.generous && e.self ? atoms : 0, last);
    f(dphi_lin2, e.generous ? e.nedge_repformer * e.n2 : 0, last);
    f(norm, e.generous && e.pair_att ? e.nedge_repformer * e.n2 : 0, last);
    f(inv_sigma, e.generous && e.pair_att ? e.nedge_repformer : 0, last);
    if (e.weights) {
      f(cat, e.nlocal * e.ncat, last);
      f(heads, e.nlocal * e.heads, last);
      f(self, e.self ? atoms : 0, last);
      f(conv, e.out_conv ? atoms : 0, last);
      f(linear1, atoms, last);
      f(attention, e.heads > 0 ? atoms : 0, last);
      f(D, e.nlocal * e.nd, 1);
    }
    f(h2, e.nedge_repformer * 3, e.update_h2 ? turns : 1);
    f(w, e.nedge_repformer, 1);
    f(x, e.nedge_repformer, 1);
    f(fall, e.fall ? e.nedge_repformer : 0, 1);
    f(dg1, rows * g, 1);
    f(dh2, e.nedge_repformer * 3 * g, 1);
    f(dw, e.nedge_repformer * g, 1);
    const std::size_t threads = e.rows.size();
    for (auto* list : {&force, &atom_virial, &virial}) list->resize(std::max(list->size(), threads));
    acc.resize(std::max(acc.size(), threads));
    for (std::size_t t = 0; t < threads; ++t) {
      const Count mine = e.rows[t];
      f(acc[t], mine * e.n1 * g, 1);
      f(force[t], mine * 3 * g, 1);
      f(virial[t], 9 * g, 1);
      f(atom_virial[t], e.atom_virial ? mine * 9 * g : 0, 1);
    }
    f(values, e.nlocal * e.values, 1);
    for (auto& b : gamma) f(b, e.deepmd_virial ? e.nedge * 3 + 1 : 0, 1);
    f(seed, e.deepmd_virial ? e.nlocal : 0, 1);
  }

  /// Bytes that the arrays have to grow by for this extent.
  std::int64_t growth(const Extent& e) {
    Count bytes;
    table(e, [&](auto& array, Count n, int copies) {
      const Count needed = n * copies * static_cast<std::int64_t>(sizeof(*array.data()));
      const std::int64_t held = static_cast<std::int64_t>(array.bytes());
      if (needed.value() > held) bytes = bytes + (needed.value() - held);
    });
    return bytes.value();
  }
  /// Bytes that the arrays and the threads' scratch memory hold.
  std::size_t held() {
    std::size_t bytes = 0;
    for (const auto& arena : arenas) bytes += arena->capacity();
    table(extent, [&](auto& array, Count, int) { bytes += array.bytes(); });
    return bytes;
  }

 private:
  int turn(int layer) const noexcept { return extent.gradient ? layer : layer % 2; }
};

}  // namespace dpa2
