#include "gpu/sum_incoming.hpp"

#include "cuda/messages.hpp"

namespace dpa2::gpu {

template <class T>
SumIncoming<T>::SumIncoming(Loader& loader) : sum_(loader.function("sum_incoming.cu", "sum_incoming")) {}

template <class T>
void SumIncoming<T>::run(Queue& queue, const Frame& frame, const T* rows, int width, T* out, int added) const {
  cuda::SumIncomingArgs<T> args{};
  args.begin = frame.repformer_incoming.begin;
  args.edges = frame.repformer_incoming.edges;
  args.rows = rows;
  args.out = out;
  args.width = width;
  args.added = added;
  queue.launch(sum_, frame.atoms, cuda::edge_threads, 0, args);
}

template class SumIncoming<float>;
template class SumIncoming<double>;

}  // namespace dpa2::gpu
