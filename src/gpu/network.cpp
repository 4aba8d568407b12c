#include "gpu/network.hpp"

#include <utility>

namespace dpa2::gpu {

template <class T>
struct Network<T>::Forward {
  EntryState<T> entry;
  T* slope = nullptr;  // of the first g1
  std::vector<LayerState<T>> layers;
  Counters counters;
  T *g1 = nullptr, *g2 = nullptr, *h2 = nullptr;  // after the last layer
  T* C = nullptr;                                 // the rotation matrix, where somebody wants it
  typename Head<T>::Kept head;
};

template <class T>
Network<T>::Network(const Config& config, const Folded& folded, Loader& loader)
    : Stages<T>(loader),
      n1_(config.repformer.g1_dim),
      n2_(config.repformer.g2_dim),
      entry_(folded.descriptor, config, loader),
      entry_nodes_(folded.descriptor, config, loader),
      rotation_(config, loader),
      head_(config, folded, loader),
      outputs_(folded.descriptor, config, loader) {
  for (const FoldedLayer& layer : folded.descriptor.layers)
    layers_.push_back(std::make_unique<Layer<T>>(layer, folded.descriptor, config, loader));
}

template <class T>
void Network<T>::forward(Queue& queue, const Frame& frame, Forward& f, bool gradient, GhostRows<T>* ghosts) const {
  entry_.forward(queue, frame, f.entry, gradient);
  f.g1 = queue.take<T>("g1", std::int64_t{frame.atoms} * n1_);
  if (gradient) f.slope = queue.take<T>("slope of g1", std::int64_t{frame.centres} * n1_);
  entry_nodes_.forward(queue, frame, f.g1, f.slope, f.entry.D);
  queue.release(std::exchange(f.entry.D, nullptr));
  f.g2 = f.entry.g2;
  f.h2 = f.entry.h2;
  for (const auto& layer : layers_) {
    LayerState<T> state;
    LayerOutput<T> out;
    state.in = {f.g1, f.g2, f.h2, f.entry.w};
    state.counters = &f.counters;
    // Most of the time of a layer goes into its pairs: where they do not look at g1, that is while its rows travel.
    const auto pairs = [&](bool before) {
      if (before != layer->pairs_read_g1()) layer->pairs_forward(queue, frame, state, out);
    };
    if (ghosts != nullptr)
      ghosts->forward(queue, f.g1, n1_, [&] { pairs(true); });
    else
      pairs(true);
    layer->forward(queue, frame, state, out, gradient);
    pairs(false);
    if (gradient) {
      f.layers.push_back(state);
    } else {
      queue.release(f.g1);
      if (out.g2 != f.g2) queue.release(f.g2);
      if (out.h2 != f.h2) queue.release(f.h2);
    }
    f.g1 = out.g1;
    f.g2 = out.g2;
    f.h2 = out.h2;
  }
}

// What layer l has read; g2 and h2 may be those of the layer before.
template <class T>
void Network<T>::release_input(Queue& queue, const Forward& f, std::size_t l) const {
  const LayerInput<T>& in = f.layers[l].in;
  queue.release(in.g1);
  if (l == 0 || f.layers[l - 1].in.g2 != in.g2) queue.release(in.g2);
  if (l == 0 || f.layers[l - 1].in.h2 != in.h2) queue.release(in.h2);
}

template <class T>
void Network<T>::backward(Queue& queue, const Frame& frame, const Forward& f, const HeadSeed& seed, const Parameters* more, T*& gamma,
                          bool last, GhostRows<T>* ghosts) const {
  const double* const of_descriptor = more != nullptr ? more->seed_descriptor : nullptr;
  const double* const of_rotation = more != nullptr ? more->seed_rot_mat : nullptr;
  const bool of_head = more == nullptr || more->seed_head != nullptr, head_rotates = of_head && head_.rotation();
  T* dg1 = queue.take<T>("dg1", std::int64_t{frame.atoms} * n1_);
  T* dC = nullptr;
  if (head_rotates || of_rotation != nullptr) dC = queue.take<T>("gradient of the rotation matrix", std::int64_t{frame.centres} * 3 * n2_);
  if (of_head)
    head_.backward(queue, frame, dg1, dC, seed, f.head);
  else if (of_descriptor == nullptr)
    queue.clear(dg1, static_cast<std::size_t>(frame.centres) * static_cast<std::size_t>(n1_) * sizeof(T));
  if (of_descriptor != nullptr) outputs_.descriptor_seeds(queue, frame, dg1, of_descriptor, of_head);
  if (of_rotation != nullptr) outputs_.rotation_seeds(queue, frame, dC, of_rotation, head_rotates);
  if (last) {
    head_.release(queue, f.head);
    queue.release(f.C);
  }

  const std::int64_t capacity = frame.repformer.capacity;
  EdgeGradient<T> edges;
  edges.dg2 = queue.take<T>("gradient of g2", capacity * n2_);
  edges.dh2 = queue.take<T>("gradient of h2", capacity * 3);
  edges.dw = queue.take<T>("gradient of edge weights", capacity);
  if (dC != nullptr) rotation_.backward(queue, frame, {nullptr, f.g2, f.h2, f.entry.w}, dC, edges);
  queue.release(dC);
  for (std::size_t l = layers_.size(); l-- > 0;) {
    T* dU = nullptr;
    const auto pairs = [&] { dU = layers_[l]->pairs_backward(queue, frame, f.layers[l], edges); };
    if (ghosts != nullptr && l + 1 < layers_.size())
      ghosts->reverse(queue, dg1, n1_, pairs);
    else
      pairs();
    dg1 = layers_[l]->backward(queue, frame, f.layers[l], dg1, dU, edges, last);
    if (last) release_input(queue, f, l);
  }
  if (ghosts != nullptr && !layers_.empty()) ghosts->reverse(queue, dg1, n1_, [] {});
  if (last) queue.release(f.entry.w);
  T* dD = queue.take<T>("gradient of the first descriptors", std::int64_t{frame.centres} * entry_nodes_.width());
  entry_nodes_.backward(queue, frame, dD, dg1, f.slope);
  queue.release(dg1);
  if (last) queue.release(f.slope);
  if (gamma == nullptr) gamma = this->take_edges(queue, frame);
  entry_.backward(queue, frame, f.entry, dD, edges.dg2, edges.dh2, edges.dw, gamma);
  queue.release(dD, edges.dg2, edges.dh2, edges.dw);
  if (of_head) head_.edges_backward(queue, frame, gamma, seed, f.head);
}

template <class T>
void Network<T>::enqueue(Queue& queue, const Frame& frame, const Request& request, const Parameters& given, const Output& out,
                         GhostRows<T>* ghosts) const {
  const bool gradient = request.forces || request.vjp;
  Forward f;
  int counters = 0;
  for (const auto& layer : layers_) counters += layer->counters() * (gradient ? 1 + this->passes(request) : 1);
  int* const counted = counters > 0 ? queue.take<int>("counters of the pair channel", counters) : nullptr;
  if (counters > 0) queue.clear(counted, static_cast<std::size_t>(counters) * sizeof(int));
  f.counters.next = counted;
  forward(queue, frame, f, gradient, ghosts);

  if (request.descriptor) outputs_.descriptor(queue, frame, out.descriptor, f.g1);
  const bool of_head = request.values || (request.vjp && given.seed_head != nullptr);
  if (request.rot_mat || (of_head && head_.rotation())) {
    f.C = queue.take<T>("rotation matrix", std::int64_t{frame.centres} * 3 * n2_);
    rotation_.forward(queue, frame, {f.g1, f.g2, f.h2, f.entry.w}, f.C);
    if (request.rot_mat) outputs_.rotation(queue, frame, out.rot_mat, f.C);
  }
  if (of_head)
    f.head = head_.forward(queue, frame, request.values ? out.atom_value : nullptr, f.g1, f.C, given.fparam, given.aparam, gradient);
  queue.release(std::exchange(f.g1, nullptr));
  Results results;
  if (request.values && shape().energy) {
    results.energy = out.value;
    results.atom_energy = out.atom_value;
  } else if (request.values && out.value != nullptr) {
    head_.totals(queue, frame, out.value, out.atom_value);
  }
  if (gradient)
    this->derivatives(queue, frame, request, given, out, results, [&](const HeadSeed& seed, T*& gamma, bool last) {
      backward(queue, frame, f, seed, request.vjp ? &given : nullptr, gamma, last, ghosts);
    });
  else if (results.atom_energy != nullptr)
    this->assemble_.run(queue, frame, nullptr, results);
}

template class Network<float>;
template class Network<double>;

}  // namespace dpa2::gpu
