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
      fitting_(folded, config, loader),
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
void Network<T>::backward(Queue& queue, const Frame& frame, const Forward& f, T* dg1, const double* seed_rotation, T* gamma,
                          GhostRows<T>* ghosts) const {
  const std::int64_t capacity = frame.repformer.capacity;
  EdgeGradient<T> edges;
  edges.dg2 = queue.take<T>("gradient of g2", capacity * n2_);
  edges.dh2 = queue.take<T>("gradient of h2", capacity * 3);
  edges.dw = queue.take<T>("gradient of edge weights", capacity);
  if (seed_rotation != nullptr) {
    T* dC = queue.take<T>("gradient of the rotation matrix", std::int64_t{frame.centres} * 3 * n2_);
    outputs_.rotation_seeds(queue, frame, dC, seed_rotation);
    rotation_.backward(queue, frame, {f.g1, f.g2, f.h2, f.entry.w}, dC, edges);
    queue.release(dC);
  }
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
void Network<T>::enqueue(Queue& queue, const Frame& frame, const Request& request, const Parameters& given, const Output& out,
                         GhostRows<T>* ghosts) const {
  const bool gradient = request.forces || request.vjp;
  const std::int64_t rows = std::int64_t{frame.centres} * n1_;
  Forward f;
  forward(queue, frame, f, gradient, ghosts);

  if (request.descriptor) outputs_.descriptor(queue, frame, out.descriptor, f.g1);
  if (request.rot_mat) {
    T* C = queue.take<T>("rotation matrix", std::int64_t{frame.centres} * 3 * n2_);
    rotation_.forward(queue, frame, {f.g1, f.g2, f.h2, f.entry.w}, C);
    outputs_.rotation(queue, frame, out.rot_mat, C);
    queue.release(C);
  }

  const bool energies = request.energy || (request.vjp && given.seed_energy != nullptr);
  typename Fitting<T>::Kept kept;
  if (energies) {
    double* const energy = request.energy ? out.atom_energy : queue.take<double>("atomic energies", frame.centres);
    kept = fitting_.forward(queue, frame, energy, f.g1, given.fparam, given.aparam, gradient);
  }
  Results results;
  if (request.energy) {
    results.energy = out.energy;
    results.atom_energy = out.atom_energy;
  }
  if (!gradient) {
    if (request.energy) assemble_.run(queue, frame, nullptr, results);
    return;
  }

  T* gamma = queue.take<T>("gradients of edges", std::int64_t{frame.master.capacity} * 3);
  T* dg1 = queue.take<T>("dg1", std::int64_t{frame.atoms} * n1_);
  const bool deepmd = request.deepmd_virial;
  if (energies)
    fitting_.backward(queue, frame, dg1, request.vjp ? given.seed_energy : nullptr, kept);
  else if (given.seed_descriptor == nullptr)
    queue.clear(dg1, static_cast<std::size_t>(rows) * sizeof(T));
  if (request.vjp && given.seed_descriptor != nullptr) outputs_.descriptor_seeds(queue, frame, dg1, given.seed_descriptor, energies);
  backward(queue, frame, f, dg1, request.vjp ? given.seed_rot_mat : nullptr, gamma, ghosts);
  results.force = out.force;
  results.virial = out.virial;
  results.atom_virial = deepmd ? nullptr : out.atom_virial;
  assemble_.run(queue, frame, gamma, results);
  if (!deepmd) return;
  T* seeded = queue.take<T>("gradients of edges, seeded", std::int64_t{frame.master.capacity} * 3);
  double* const seed = queue.take<double>("positions as seeds", frame.centres);
  double* const wrapped = queue.take<double>("positions in the boxes", std::int64_t{frame.centres} * 3);
  assemble_.in_box(queue, frame, given.coords, given.boxes, wrapped);
  for (int axis = 0; axis < 3; ++axis) {
    assemble_.coordinate(queue, frame, axis, wrapped, seed);
    dg1 = queue.take<T>("dg1", std::int64_t{frame.atoms} * n1_);
    fitting_.backward(queue, frame, dg1, seed, kept);
    backward(queue, frame, f, dg1, nullptr, seeded, ghosts);
    assemble_.deepmd(queue, frame, axis, wrapped, seeded, gamma, out.atom_virial);
  }
}

template class Network<float>;
template class Network<double>;

}  // namespace dpa2::gpu
