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
// Everything else (repinit's activations, attention scores, moments, projections, the first g2) is recomputed per centre in
// the backward from these, in the scratch memory of the thread; what the last layer and the fitting leave is used up tile by
// tile. `generous` spares the backward products that it would have to repeat; it is for systems so small that nobody will
// miss the memory (generous_limit). `keep` is 1 where that fits into the memory there is, and else the smallest interval that
// does: the g2 between are computed again from the kept ones, to the same bits. Without a backward nothing is kept: g1 takes
// turns in the memory of two layers and g2 is updated in place. `Workspace::table` below is the one place that states the
// sizes; buffers are made from it, and the memory that an evaluation will need is counted by it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "cpu/arena.hpp"
#include "graph/buffer.hpp"
#include "graph/count.hpp"
#include "graph/parallel.hpp"

namespace dpa2 {

/// The most bytes that may be taken for what `generous` keeps per edge.
inline constexpr std::int64_t generous_limit = std::int64_t{1} << 30;

/// What the sizes depend on.
struct Extent {
  Count nlocal, nall, nedge, nedge2;  ///< nedge2: of the repformer lists
  int nlayers = 0, n1 = 0, n2 = 0;
  int keep = 1;             ///< of g2: every how many layers it is kept for the backward
  bool generous = false;    ///< whether memory is taken to spare work
  bool pair_att = false, self = false;  ///< whether there is a LayerNorm, a self MLP
  bool update_h2 = false;
  bool gradient = false, atom_virial = false, deepmd_virial = false;
  std::vector<std::int64_t> rows;  ///< per thread: rows of its sums
};

/// One array per layer in one piece of memory; with fewer copies than layers, they take turns.
template <class T>
class Layers {
 public:
  template <class U>
  struct Slice {
    U* first;
    U* data() const noexcept { return first; }
  };
  void shape(int layers, int copies, Count size) noexcept {
    layers_ = layers;
    copies_ = std::max(1, std::min(layers, copies));
    size_ = size.value();
  }
  Count total() const noexcept { return layers_ == 0 ? Count() : Count(copies_) * size_; }
  Slice<T> operator[](std::size_t l) noexcept { return {memory.data() + offset(l)}; }
  Slice<const T> operator[](std::size_t l) const noexcept { return {memory.data() + offset(l)}; }
  Slice<T> back() noexcept { return (*this)[static_cast<std::size_t>(layers_ - 1)]; }

  Buffer<T> memory;

 private:
  std::int64_t offset(std::size_t l) const noexcept { return static_cast<std::int64_t>(l) % copies_ * size_; }
  int layers_ = 0, copies_ = 1;
  std::int64_t size_ = 0;
};

template <class T>
struct Workspace {
  std::vector<std::unique_ptr<Arena>> arenas;  ///< one per thread
  Partition partition;
  Extent extent;
  Buffer<std::int64_t> start2;                 ///< (nlocal + 1): first repformer edge of a centre

  // kept between forward and backward
  Layers<T> g1;                                ///< [nlayers] (nall, n1); without a backward [nlayers + 1]
  Buffer<T> dphi_entry;                        ///< (nlocal, n1)
  Layers<T> dphi_lin;                          ///< [nlayers - 1] (nlocal, n1)
  Layers<T> g2;                                ///< [(nlayers - 1) / keep] (nedge2, n2): of the layers keep, 2 keep, ...
  Layers<T> dphi_self, dphi_lin2;              ///< [nlayers - 1] (nlocal, n1), (nedge2, n2), if `generous`
  Layers<T> norm, inv_sigma;                   ///< [nlayers - 1] (nedge2, n2), (nedge2), if `generous`
  Layers<T> h2;                                ///< [nlayers or 1] (nedge2, 3)
  Buffer<T> w, x;                              ///< (nedge2): switch or 1; input of the g2 embedding
  Buffer<double> atom_energy;                  ///< (nlocal)

  // the backward
  Buffer<T> dg1, dg2, dh2, dw;                 ///< (nall, n1), (nedge2, n2), (nedge2, 3), (nedge2)
                                               ///< dg2 holds the g2 that are not kept, one after the other, until it is needed
  std::vector<Buffer<T>> acc;                  ///< per thread (rows, n1): what the thread adds to dg1
  std::vector<Buffer<double>> force, atom_virial, virial;  ///< per thread (rows, 3), (rows, 9), (9)
  Buffer<double> gamma[4], seed;               ///< (nedge, 3), (nlocal), only for deepmd-kit's atomic virial

  /// f(buffer, elements) for every buffer that an evaluation of this extent uses.
  template <class F>
  void table(const Extent& e, F f) {
    const Count atoms = e.nlocal * e.n1, rows = e.nall * e.n1, g = e.gradient ? 1 : 0;
    const int last = e.nlayers - 1;
    const auto layers = [&](Layers<T>& l, int number, int copies, Count size) {
      l.shape(number, copies, size);
      f(l.memory, l.total());
    };
    f(start2, e.nlocal + 1);
    layers(g1, e.nlayers + 1, e.gradient ? e.nlayers : 2, rows);
    f(dphi_entry, atoms * g);
    layers(dphi_lin, last, last, atoms * g);
    layers(g2, last / e.keep, last / e.keep, e.nedge2 * e.n2 * g);
    layers(dphi_self, last, last, e.generous && e.self ? atoms : 0);
    layers(dphi_lin2, last, last, e.generous ? e.nedge2 * e.n2 : 0);
    layers(norm, last, last, e.generous && e.pair_att ? e.nedge2 * e.n2 : 0);
    layers(inv_sigma, last, last, e.generous && e.pair_att ? e.nedge2 : 0);
    layers(h2, e.update_h2 ? e.nlayers : 1, e.gradient ? e.nlayers : 2, e.nedge2 * 3);
    f(w, e.nedge2);
    f(x, e.nedge2);
    f(atom_energy, e.nlocal);
    f(dg1, rows * g);
    f(dg2, e.nedge2 * e.n2);
    f(dh2, e.nedge2 * 3 * g);
    f(dw, e.nedge2 * g);
    const std::size_t threads = e.rows.size();
    for (auto* list : {&force, &atom_virial, &virial}) list->resize(std::max(list->size(), threads));
    acc.resize(std::max(acc.size(), threads));
    for (std::size_t t = 0; t < threads; ++t) {
      const Count mine = e.rows[t];
      f(acc[t], mine * e.n1 * g);
      f(force[t], mine * 3 * g);
      f(virial[t], 9 * g);
      f(atom_virial[t], e.atom_virial ? mine * 9 * g : 0);
    }
    for (auto& b : gamma) f(b, e.deepmd_virial ? e.nedge * 3 + 1 : 0);
    f(seed, e.deepmd_virial ? e.nlocal : 0);
  }

  /// Bytes that the buffers have to grow by for this extent.
  std::int64_t growth(const Extent& e) {
    Count bytes;
    table(e, [&](auto& b, Count n) {
      const Count needed = n * static_cast<std::int64_t>(sizeof(*b.data()));
      const std::int64_t held = static_cast<std::int64_t>(b.bytes());
      if (needed.value() > held) bytes = bytes + (needed.value() - held);
    });
    return bytes.value();
  }
};

}  // namespace dpa2
