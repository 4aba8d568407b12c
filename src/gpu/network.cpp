#include "gpu/network.hpp"

#include <utility>

namespace dpa2::gpu {

template <class T>
struct Network<T>::Forward {
  EntryState<T> entry;
  T* slope = nullptr;  // of the first g1
  std::vector<LayerState<T>> layers;
  T *g1 = nullptr, *g2 = nullptr, *h2 = nullptr;  // after the last layer
};

template <class T>
Network<T>::Network(const Config& config, const Folded& folded, Loader& loader)
    : n1_(config.repformer.g1_dim),
      n2_(config.repformer.g2_dim),
      entry_(folded.descriptor, config, loader),
      entry_nodes_(folded.descriptor, config, loader),
      rotation_(config, loader),
      head_(folded, config, loader),
      outputs_(folded.descriptor, config, loader),
      assemble_(loader) {
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
    if (ghosts != nullptr) ghosts->forward(queue, f.g1, n1_);
    LayerState<T> state;
    state.in = {f.g1, f.g2, f.h2, f.entry.w};
    const LayerOutput<T> out = layer->forward(queue, frame, state, gradient);
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

template <class T>
void Network<T>::backward(Queue& queue, const Frame& frame, const Forward& f, T* dg1, T* dC, T* gamma, GhostRows<T>* ghosts) const {
  const std::int64_t capacity = frame.repformer.capacity;
  EdgeGradient<T> edges;
  edges.dg2 = queue.take<T>("gradient of g2", capacity * n2_);
  edges.dh2 = queue.take<T>("gradient of h2", capacity * 3);
  edges.dw = queue.take<T>("gradient of edge weights", capacity);
  if (dC != nullptr) rotation_.backward(queue, frame, {f.g1, f.g2, f.h2, f.entry.w}, dC, edges);
  queue.release(dC);
  for (std::size_t l = layers_.size(); l-- > 0;) {
    dg1 = layers_[l]->backward(queue, frame, f.layers[l], dg1, edges);
    if (ghosts != nullptr) ghosts->reverse(queue, dg1, n1_);
  }
  T* dD = queue.take<T>("gradient of the first descriptors", std::int64_t{frame.centres} * entry_nodes_.width());
  entry_nodes_.backward(queue, frame, dD, dg1, f.slope);
  queue.release(dg1);
  entry_.backward(queue, frame, f.entry, dD, edges.dg2, edges.dh2, edges.dw, gamma);
  queue.release(dD, edges.dg2, edges.dh2, edges.dw);
}

template <class T>
void Network<T>::backward(Queue& queue, const Frame& frame, const Forward& f, const HeadSeed& seed, const typename Head<T>::Kept& kept,
                          T* gamma, GhostRows<T>* ghosts) const {
  T* dg1 = queue.take<T>("dg1", std::int64_t{frame.atoms} * n1_);
  T* dC = head_.rotation() ? queue.take<T>("gradient of the rotation matrix", std::int64_t{frame.centres} * 3 * n2_) : nullptr;
  head_.backward(queue, frame, dg1, dC, seed, kept);
  backward(queue, frame, f, dg1, dC, gamma, ghosts);
}

template <class T>
void Network<T>::backward_seeds(Queue& queue, const Frame& frame, const Forward& f, const Parameters& given,
                                const typename Head<T>::Kept& kept, T* gamma, GhostRows<T>* ghosts) const {
  const bool of_head = given.seed_head != nullptr, head_rotates = of_head && head_.rotation();
  T* dg1 = queue.take<T>("dg1", std::int64_t{frame.atoms} * n1_);
  T* dC = head_rotates || given.seed_rot_mat != nullptr
              ? queue.take<T>("gradient of the rotation matrix", std::int64_t{frame.centres} * 3 * n2_)
              : nullptr;
  if (of_head)
    head_.backward(queue, frame, dg1, dC, {given.seed_head, -1}, kept);
  else if (given.seed_descriptor == nullptr)
    queue.clear(dg1, static_cast<std::size_t>(frame.centres) * static_cast<std::size_t>(n1_) * sizeof(T));
  if (given.seed_descriptor != nullptr) outputs_.descriptor_seeds(queue, frame, dg1, given.seed_descriptor, of_head);
  if (given.seed_rot_mat != nullptr) outputs_.rotation_seeds(queue, frame, dC, given.seed_rot_mat, head_rotates);
  backward(queue, frame, f, dg1, dC, gamma, ghosts);
}

template <class T>
void Network<T>::enqueue(Queue& queue, const Frame& frame, const Request& request, const Parameters& given, const Output& out,
                         GhostRows<T>* ghosts) const {
  const bool gradient = request.forces || request.vjp;
  Forward f;
  forward(queue, frame, f, gradient, ghosts);

  if (request.descriptor) outputs_.descriptor(queue, frame, out.descriptor, f.g1);
  const bool values = request.values || (request.vjp && given.seed_head != nullptr);
  T* C = nullptr;
  if (request.rot_mat || (values && head_.rotation())) {
    C = queue.take<T>("rotation matrix", std::int64_t{frame.centres} * 3 * n2_);
    rotation_.forward(queue, frame, {f.g1, f.g2, f.h2, f.entry.w}, C);
    if (request.rot_mat) outputs_.rotation(queue, frame, out.rot_mat, C);
    if (!values) queue.release(std::exchange(C, nullptr));
  }
  typename Head<T>::Kept kept;
  if (values)
    kept = head_.forward(queue, frame, request.values ? out.atom_value : nullptr, f.g1, C, given.fparam, given.aparam, gradient);
  if (request.values && out.value != nullptr) head_.totals(queue, frame, out.value, out.atom_value);
  Results results;
  if (request.values && head_.shape().energy) {
    results.energy = out.value;
    results.atom_energy = out.atom_value;
  }
  if (!gradient) {
    if (results.atom_energy != nullptr) assemble_.run(queue, frame, nullptr, results);
    return;
  }

  T* gamma = queue.take<T>("gradients of edges", std::int64_t{frame.master.capacity} * 3);
  const auto assemble = [&](int component, int components) {
    results.force = out.force + 3 * component;
    results.virial = out.virial + 9 * component;
    results.atom_virial = request.deepmd_virial || out.atom_virial == nullptr ? nullptr : out.atom_virial + 9 * component;
    results.components = components;
    assemble_.run(queue, frame, gamma, results);
  };
  if (request.vjp) {
    backward_seeds(queue, frame, f, given, kept, gamma, ghosts);
    return assemble(0, 1);
  }
  const int components = head_.shape().components;
  double *seed = nullptr, *wrapped = nullptr;
  T* seeded = nullptr;
  for (int component = 0; component < components; ++component) {
    backward(queue, frame, f, {given.weights, component}, kept, gamma, ghosts);
    assemble(component, components);
    if (!request.deepmd_virial) continue;
    if (component == 0) {
      seeded = queue.take<T>("gradients of edges, seeded", std::int64_t{frame.master.capacity} * 3);
      seed = queue.take<double>("positions as seeds", frame.centres);
      wrapped = queue.take<double>("positions in the boxes", std::int64_t{frame.centres} * 3);
      assemble_.in_box(queue, frame, given.coords, given.boxes, wrapped);
    }
    for (int axis = 0; axis < 3; ++axis) {
      assemble_.coordinate(queue, frame, axis, wrapped, given.weights, seed);
      backward(queue, frame, f, {seed, component}, kept, seeded, ghosts);
      results.atom_virial = out.atom_virial + 9 * component;
      assemble_.deepmd(queue, frame, axis, wrapped, seeded, gamma, results);
    }
  }
}

template class Network<float>;
template class Network<double>;

}  // namespace dpa2::gpu
