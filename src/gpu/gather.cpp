#include "gpu/gather.hpp"

namespace dpa2::gpu {

template <class T>
Gather<T>::Gather(int n1, int n2, Loader& loader)
    : gather_(loader.function("gather.cu", "gather", numbers_of_edges(n2))), n1_(n1), n2_(n2) {}

template <class T>
void Gather<T>::run(Queue& queue, const Frame& frame, cuda::GatherArgs<T> terms, NeighbourGradient<T>& neighbours) const {
  const bool to_g1 = terms.P != nullptr || terms.vectors != nullptr || terms.room != nullptr;
  if (!to_g1 && terms.dnode == nullptr) return;
  terms.begin = frame.repformer_incoming.begin;
  terms.edges = frame.repformer_incoming.edges;
  terms.centre = frame.repformer.centre;
  terms.start = frame.repformer.start;
  terms.dg1 = neighbours.dg1;
  terms.n1 = n1_;
  terms.n2 = n2_;
  terms.added = neighbours.set;
  queue.launch(gather_, frame.atoms, cuda::edge_threads, 0, terms);
  if (to_g1) neighbours.set = frame.atoms;
}

template class Gather<float>;
template class Gather<double>;

}  // namespace dpa2::gpu
