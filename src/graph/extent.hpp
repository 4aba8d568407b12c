// What the sizes of an evaluation's buffers depend on.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "graph/count.hpp"
#include "graph/memory.hpp"
#include "graph/prepared.hpp"
#include "math/wide.hpp"

namespace dpa2 {

/// What is wanted of an evaluation.
struct Task {
  bool gradient = false;
  AtomVirial atom_virial = AtomVirial::none;
  int values = 0;        ///< numbers per atom that are made of the descriptor
  bool weights = false;  ///< gradients of weights as well
};

/// The most bytes that may be taken for what `generous` keeps per edge.
inline constexpr std::int64_t generous_limit = std::int64_t{1} << 30;

struct Extent {
  Count nlocal, nall, nedge, nedge_repformer;  ///< nedge_repformer: of the repformer lists
  int nlayers = 0, n1 = 0, n2 = 0;
  int values = 0;
  int keep = 1;                         ///< of g2: every how many layers it is kept for the backward
  bool generous = false;                ///< whether memory is taken to spare work
  bool pair_att = false, self = false;  ///< whether there is a LayerNorm, a self MLP
  bool update_h2 = false;
  bool fall = false;  ///< whether what switches lack to 1 is wanted
  bool gradient = false, weights = false, atom_virial = false, deepmd_virial = false;
  // Of the gradients of weights: what is kept of a centre's first descriptor and of a layer's terms.
  int nd = 0, ncat = 0, heads = 0;  ///< widths of [D, Q], of linear1's input, and of all heads of the local attention
  bool out_conv = false;
  std::vector<std::int64_t> rows;  ///< per thread: rows of its sums
};

/// Without ghosts, and with memory to spare; the threads' rows are left to the caller.
template <class T>
Extent extent_of(const Prepared<Real<T>>& m, const Task& task, Count nlocal, Count nedge, Count nedge_repformer) {
  Extent e;
  e.nlocal = e.nall = nlocal;
  e.nedge = nedge;
  e.nedge_repformer = nedge_repformer;
  e.nlayers = static_cast<int>(m.layers.size());
  e.n1 = m.n1;
  e.n2 = m.n2;
  e.values = task.values;
  e.update_h2 = m.has().update_h2;
  e.gradient = task.gradient;
  e.weights = task.weights;
  if (task.weights) {
    e.nd = m.nd;
    for (const auto& layer : m.layers) e.ncat = std::max(e.ncat, layer.ncat);
    e.heads = m.has().local_attention ? m.nh1 * m.n1 : 0;
    e.out_conv = m.has().out_conv;
  }
  e.pair_att = m.has().pair_attention;
  e.self = m.has().self;
  e.fall = by_fall<T> && m.smooth && (m.has().pair_map() || m.has().local_attention);
  e.generous = e.gradient &&
               nedge_repformer * (e.nlayers - 1) * m.n2 * (e.pair_att ? 2 : 1) * static_cast<std::int64_t>(sizeof(T)) <= generous_limit;
  e.atom_virial = task.atom_virial == AtomVirial::edge;
  e.deepmd_virial = e.gradient && task.atom_virial == AtomVirial::deepmd;
  return e;
}

}  // namespace dpa2
