#include "gpu/layer.hpp"

#include <cstdint>

namespace dpa2::gpu {

template <class T>
Layer<T>::Layer(const FoldedLayer& layer, const FoldedDescriptor& descriptor, const Config& config, Loader& loader)
    : update_(layer, descriptor.act, loader),
      messages_(layer, config, loader),
      gather_(config.repformer.g1_dim, config.repformer.g2_dim, loader),
      product_(descriptor.act, loader),
      n1_(config.repformer.g1_dim),
      n2_(config.repformer.g2_dim),
      last_(layer.has.last),
      updates_h2_(layer.has.update_h2) {
  if (messages_.wants_node()) node_ = upload_both<T>(layer.conv, loader);
  if (layer.local_attention) {
    queries_ = upload_both<T>(layer.local_attention->query, loader);
    attention_.emplace(config, descriptor.attention_shift, loader);
  }
  if (layer.has.g1g1) g1g1_.emplace(layer, loader);
  if (!last_) pairs_.emplace(layer, descriptor, config, loader);
}

template <class T>
T* Layer<T>::projected(Queue& queue, int rows, const LayerInput<T>& in, const Weights2<T>& w) const {
  if (w.w == nullptr) return nullptr;
  T* out = queue.take<T>("g1 projected", std::int64_t{rows} * w.out);
  product_.forward(queue, rows, out, in.g1, w);
  return out;
}

template <class T>
void Layer<T>::pairs_forward(Queue& queue, const Frame& frame, const LayerState<T>& state, LayerOutput<T>& out) const {
  const std::int64_t edges = frame.repformer.capacity;
  const LayerInput<T>& in = state.in;
  out.g2 = const_cast<T*>(in.g2);
  out.h2 = const_cast<T*>(in.h2);
  if (last_) return;
  T* U = g1g1_ ? queue.take<T>("g1g1", edges * n2_) : nullptr;
  if (g1g1_) g1g1_->forward(queue, frame, in, U);
  out.g2 = queue.take<T>("g2", edges * n2_);
  if (updates_h2_) out.h2 = queue.take<T>("h2", edges * 3);
  pairs_->forward(queue, frame, in, state.counters, U, out.g2, out.h2);
  queue.release(U);
}

template <class T>
void Layer<T>::forward(Queue& queue, const Frame& frame, LayerState<T>& state, LayerOutput<T>& out, bool gradient) const {
  const std::int64_t centres = frame.centres;
  const LayerInput<T>& in = state.in;
  const std::int64_t heads = update_.heads();

  T* node = projected(queue, frame.atoms, in, node_);
  T* conv = messages_.has_conv() ? queue.take<T>("conv", centres * n1_) : nullptr;
  T* cat = update_.cat().width > 0 ? queue.take<T>("input of linear1", centres * update_.cat().width) : nullptr;
  state.messages = messages_.keep(queue, frame);
  messages_.forward(queue, frame, in, node, conv, cat, state.messages);
  queue.release(node);
  if (!gradient) queue.release(state.messages.grrg, state.messages.drrd);

  T* o = nullptr;
  if (attention_) {
    T* tq = projected(queue, frame.centres, in, queries_);
    o = queue.take<T>("attention to neighbours", centres * heads * n1_);
    state.attention = attention_->keep(queue, frame);
    attention_->forward(queue, frame, in, tq, o, state.attention);
    queue.release(tq);
    if (!gradient) queue.release(state.attention.largest, state.attention.inverse);
  }
  if (gradient) state.g1 = update_.keep(queue, frame.centres);
  out.g1 = queue.take<T>("g1", std::int64_t{frame.atoms} * n1_);
  update_.forward(queue, frame.centres, out.g1, in.g1, cat, conv, o, state.g1);
  queue.release(conv, cat, o);
}

template <class T>
T* Layer<T>::pairs_backward(Queue& queue, const Frame& frame, const LayerState<T>& state, EdgeGradient<T>& edges) const {
  T* dU = g1g1_ ? queue.take<T>("gradient of g1g1", std::int64_t{frame.repformer.capacity} * n2_) : nullptr;
  if (pairs_) pairs_->backward(queue, frame, state.in, state.counters, edges, dU);
  return dU;
}

template <class T>
T* Layer<T>::backward(Queue& queue, const Frame& frame, const LayerState<T>& state, T* dout, T* dU, EdgeGradient<T>& edges,
                      bool last) const {
  const std::int64_t centres = frame.centres;
  const LayerInput<T>& in = state.in;
  const std::int64_t heads = update_.heads();

  T* dg1 = queue.take<T>("gradient of g1", std::int64_t{frame.atoms} * n1_);
  T* dcat = update_.cat().width > 0 ? queue.take<T>("gradient of linear1's input", centres * update_.cat().width) : nullptr;
  T* d_o = attention_ ? queue.take<T>("gradient of the attention to neighbours", centres * heads * n1_) : nullptr;
  update_.backward(queue, frame.centres, dg1, dcat, d_o, dout, state.g1);
  if (last) queue.release(state.g1.self_slope, state.g1.linear_slope);

  NeighbourGradient<T> neighbours{dg1, frame.centres};
  T* node = projected(queue, frame.atoms, in, node_);
  T* dnode = node_.w != nullptr ? queue.take<T>("gradient of g1 projected", std::int64_t{frame.atoms} * node_.out) : nullptr;
  auto terms = messages_.backward(queue, frame, in, node, state.messages, dout, dcat, nullptr, edges, dnode);
  queue.release(node);
  if (terms.dnode == nullptr) queue.release(dcat);
  if (last) queue.release(state.messages.grrg, state.messages.drrd);
  gather_.run(queue, frame, terms, neighbours);
  if (terms.dnode != nullptr) queue.release(dcat);
  queue.release(dout, terms.vectors);

  T* tq = nullptr;
  cuda::GatherArgs<T> attention{};
  if (attention_) {
    tq = projected(queue, frame.centres, in, queries_);
    T* dtq = queue.take<T>("gradient of queries", centres * heads * n1_);
    attention = attention_->backward(queue, frame, in, tq, state.attention, d_o, dtq, edges);
    if (last) queue.release(state.attention.largest, state.attention.inverse);
    product_.backward(queue, frame.centres, dg1, dtq, queries_, true);
    queue.release(dtq);
  }
  // Both are sums over the same edges. What the messages bring is apart from them, so that its gradients need not be kept until here.
  if (g1g1_)
    g1g1_->backward(queue, frame, in, dU, edges, attention, neighbours);
  else
    gather_.run(queue, frame, attention, neighbours);
  queue.release(attention.room, tq, d_o, dU);
  if (neighbours.set < frame.atoms)
    queue.clear(dg1 + centres * n1_, static_cast<std::size_t>(frame.atoms - frame.centres) * static_cast<std::size_t>(n1_) * sizeof(T));
  if (dnode != nullptr) product_.backward(queue, frame.atoms, dg1, dnode, node_, true);
  queue.release(dnode);
  return dg1;
}

template class Layer<float>;
template class Layer<double>;

}  // namespace dpa2::gpu
