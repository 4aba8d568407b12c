#include "graph/descriptor.hpp"

#include <algorithm>
#include <utility>
#include <vector>

#include "graph/entry.hpp"
#include "graph/repformer.hpp"
#include "threads.hpp"

namespace dpa2 {

/// f(thread, first, last, arena) for every tile of centres.
template <class T>
template <class F>
void Descriptor<T>::for_tiles(F f) {
  parallel(ws_.partition.threads(), [&](int t) {
    const ThreadRange& range = ws_.partition.range(t);
    Arena& arena = *ws_.arenas[static_cast<std::size_t>(t)];
    // Gradients of weights are large matrices: more rows at once, and they are read and written less often.
    const int size = ws_.extent.weights ? weights_tile_size : tile_size;
    for (int i0 = range.begin; i0 < range.end; i0 += size) f(t, i0, std::min(i0 + size, range.end), arena);
  });
}

template <class T>
void Descriptor<T>::begin(const Frame& frame, int threads, const Task& task) {
  frame_ = &frame;
  const Edges& edges = *frame.edges;
  threads = share_out(ws_, edges, threads);

  const std::size_t nlocal = static_cast<std::size_t>(edges.nlocal);
  std::int64_t* start = ws_.start_repformer.resize(nlocal + 1);
  start[0] = 0;
  for (std::size_t i = 0; i < nlocal; ++i) start[i + 1] = start[i] + edges.n_repformer[i];
  std::vector<std::int64_t> rows = std::move(ws_.extent.rows);  // keeps its memory
  rows.clear();
  for (int t = 0; t < threads; ++t) rows.push_back(ws_.partition.range(t).rows());
  Extent extent = extent_of<T>(m_, task, edges.nlocal, edges.nedge(), start[nlocal]);
  extent.nall = edges.nall;
  extent.rows = std::move(rows);
  plan(ws_, std::move(extent), thrift_);
}

template <class T>
void Descriptor<T>::require(std::int64_t natoms, const Task& task) {
  Extent least = extent_of<T>(m_, task, natoms, 0, 0);
  least.generous = false;
  require_memory(ws_.growth(least), natoms);
}

template <class T>
void Descriptor<T>::forward(Exchange* exchange) {
  const Pass<T> pass(m_, ws_, *frame_);
  const Entry<T> entry(pass);
  const LayerForward<T> layer(pass);
  for_tiles([&](int, int i0, int i1, Arena& arena) { entry.forward(i0, i1, arena); });
  for (int l = 0; l <= last(); ++l) {
    ws_.pairs.enter(l);
    if constexpr (!is_dual<T>)
      if (exchange != nullptr) exchange->forward(ws_.g1_before(l), m_.n1);
    if (l < last()) for_tiles([&](int, int i0, int i1, Arena& arena) { layer.tile(l, kept_tile(l, i0, i1), arena); });
  }
}

/// The output of a layer before the last is the input of the next.
template <class T>
Tile<T> Descriptor<T>::kept_tile(int layer, int i0, int i1) {
  const std::ptrdiff_t row0 = static_cast<std::ptrdiff_t>(i0) * m_.n1;
  Tile<T> tile;
  tile.i0 = i0;
  tile.i1 = i1;
  tile.g1 = ws_.g1_before(layer + 1) + row0;
  if (ws_.extent.gradient) tile.dphi_lin = ws_.dphi_lin[layer] + row0;
  if (ws_.extent.generous && m_.has().self) tile.dphi_self = ws_.dphi_self[layer] + row0;
  if (ws_.extent.weights) {
    const LayerFeatures& has = m_.has();
    const std::ptrdiff_t heads = static_cast<std::ptrdiff_t>(i0) * m_.n1 * m_.nh1;
    tile.kept.cat = ws_.cat[layer] + static_cast<std::ptrdiff_t>(i0) * m_.layers[static_cast<std::size_t>(layer)].ncat;
    tile.kept.linear1 = ws_.linear1[layer] + row0;
    if (has.self) tile.kept.self = ws_.self[layer] + row0;
    if (has.out_conv) tile.kept.conv = ws_.conv[layer] + row0;
    if (has.local_attention) tile.kept.o = ws_.heads[layer] + heads;
    if (has.local_attention) tile.kept.attention = ws_.attention[layer] + row0;
  }
  return tile;
}

/// Room for those of the last layer, which a tile leaves behind.
template <class T>
NodeTerms<T> Descriptor<T>::last_terms(int count, Arena& arena) {
  const long size = static_cast<long>(count) * m_.n1;
  const LayerFeatures& has = m_.layers.back().has;
  NodeTerms<T> terms;
  terms.cat = arena.take<T>(static_cast<long>(count) * m_.layers.back().ncat);
  terms.linear1 = arena.take<T>(size);
  if (has.self) terms.self = arena.take<T>(size);
  if (has.out_conv) terms.conv = arena.take<T>(size);
  if (has.local_attention) terms.o = arena.take<T>(size * m_.nh1);
  if (has.local_attention) terms.attention = arena.take<T>(size);
  return terms;
}

template <class T>
void Descriptor<T>::read(Readout<T>& readout) {
  const LayerForward<T> layer(Pass<T>(m_, ws_, *frame_));
  for_tiles([&](int, int i0, int i1, Arena& arena) {
    const Arena::Mark mark = arena.mark();
    Tile<T> tile;
    tile.i0 = i0;
    tile.i1 = i1;
    tile.g1 = arena.take<T>(static_cast<long>(i1 - i0) * m_.n1);
    if (readout.rotation()) tile.rot = arena.take<T>(static_cast<long>(i1 - i0) * 3 * m_.n2);
    layer.tile(last(), tile, arena);
    readout.tile(i0, i1, {tile.g1, tile.rot}, nullptr, arena);
    arena.release(mark);
  });
}

/// The last layer and the readout of a tile, and back through the layer: nothing of a tile outlives it but what `keep` keeps.
template <class T>
void Descriptor<T>::last_tile(int t, int i0, int i1, Readout<T>& readout, const ThreadGradients<T>* gradients, Arena& arena) {
  const Arena::Mark mark = arena.mark();
  const Pass<T> pass(m_, ws_, *frame_, gradients);
  const long size = static_cast<long>(i1 - i0) * m_.n1, moments = static_cast<long>(i1 - i0) * 3 * m_.n2;
  Tile<T> tile;
  tile.i0 = i0;
  tile.i1 = i1;
  tile.g1 = arena.take<T>(size);
  tile.dphi_lin = arena.take<T>(size);
  tile.dphi_self = arena.take<T>(size);
  Rows<T> gradient;
  gradient.g1 = arena.take<T>(size);
  if (readout.rotation()) {
    tile.rot = arena.take<T>(moments);
    gradient.rot = arena.take<T>(moments);
  }
  if (gradients != nullptr) tile.kept = last_terms(i1 - i0, arena);
  LayerForward<T>(pass).tile(last(), tile, arena);
  readout.tile_of_thread(t, i0, i1, {tile.g1, tile.rot}, &gradient, arena);
  LayerBackward<T>(pass).tile(last(), t, tile, gradient.g1, gradient.rot, arena);
  arena.release(mark);
}

/// Down to the gradient of the first g1, and of the first g2, h2 and switch of the edges.
template <class T>
void Descriptor<T>::layers_backward(Exchange* exchange, Readout<T>& readout, const ThreadGradients<T>* gradients) {
  const LayerBackward<T> layer(Pass<T>(m_, ws_, *frame_, gradients));
  const std::size_t n1 = static_cast<std::size_t>(m_.n1);
  for (int l = last(); l >= 0; --l) {
    parallel(ws_.partition.threads(),
             [&](int t) { ws_.acc[static_cast<std::size_t>(t)].zeros(static_cast<std::size_t>(ws_.partition.range(t).rows()) * n1); });
    for_tiles([&](int t, int i0, int i1, Arena& arena) {
      if (l == last())
        last_tile(t, i0, i1, readout, gradients, arena);
      else
        layer.tile(l, t, kept_tile(l, i0, i1), ws_.dg1.data() + static_cast<std::ptrdiff_t>(i0) * m_.n1, nullptr, arena);
    });
    ws_.pairs.leave();
    ws_.partition.merge(ws_.acc, m_.n1, ws_.dg1.data(), m_.n1);
    if constexpr (!is_dual<T>)
      if (exchange != nullptr) exchange->reverse(ws_.dg1.data(), m_.n1);
  }
}

template <class T>
void Descriptor<T>::backward(Exchange* exchange, Readout<T>& readout, const Forces& out) {
  layers_backward(exchange, readout);
  clear_sums(ws_, out);
  const Entry<T> entry(Pass<T>(m_, ws_, *frame_));
  for_tiles([&](int t, int i0, int i1, Arena& arena) { entry.backward(t, i0, i1, nullptr, out.atom_virial != nullptr, arena); });
  merge_sums(ws_, out);
}

template <class T>
void Descriptor<T>::backward(Exchange* exchange, Readout<T>& readout, double* gamma) {
  layers_backward(exchange, readout);
  const Entry<T> entry(Pass<T>(m_, ws_, *frame_));
  for_tiles([&](int t, int i0, int i1, Arena& arena) { entry.backward(t, i0, i1, gamma, false, arena); });
}

template <class T>
void Descriptor<T>::gradient(Readout<T>& readout, const ThreadGradients<T>& gradients) {
  layers_backward(nullptr, readout, &gradients);
  const Entry<T> entry(Pass<T>(m_, ws_, *frame_, &gradients));
  for_tiles([&](int t, int i0, int i1, Arena& arena) { entry.gradient(t, i0, i1, arena); });
}

template class Descriptor<double>;
template class Descriptor<float>;
template class Descriptor<Dual<double>>;
template class Descriptor<Dual<float>>;

}  // namespace dpa2
