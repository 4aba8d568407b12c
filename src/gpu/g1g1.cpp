#include "gpu/g1g1.hpp"

#include "cuda/g1g1.hpp"
#include "error.hpp"

namespace dpa2::gpu {

template <class T>
G1G1<T>::G1G1(const FoldedLayer& layer, Loader& loader)
    : forward_(loader.function("g1g1.cu", "g1g1")),
      backward_(loader.function("g1g1.cu", "g1g1_backward")),
      n1_(layer.g1g1.rows),
      n2_(layer.g1g1.cols),
      W_(upload_for_tiles<T>(layer.g1g1, loader)),
      Wt_(upload_for_tiles<T>(transposed(layer.g1g1), loader)) {}

template <class T>
void G1G1<T>::forward(Queue& queue, const Frame& frame, const LayerInput<T>& in, T* U) const {
  cuda::G1G1Args<T> args{};
  args.start = frame.repformer.start;
  args.j = frame.repformer.j;
  args.g1 = in.g1;
  args.W = W_;
  args.w = in.w;
  args.U = U;
  args.n1 = n1_;
  args.n2 = n2_;
  queue.launch(forward_, frame.centres, cuda::edge_threads, 0, args);
}

template <class T>
void G1G1<T>::backward(Queue& queue, const Frame& frame, const LayerInput<T>& in, const T* dU, T* dg1, const EdgeGradient<T>& edges,
                       NeighbourGradient<T>& neighbours) const {
  if (edges.fresh) throw internal_error("g1g1 adds to gradients of the edges that nothing has set");
  cuda::G1G1BackwardArgs<T> args{};
  args.start = frame.repformer.start;
  args.j = frame.repformer.j;
  args.g1 = in.g1;
  args.Wt = Wt_;
  args.w = in.w;
  args.dU = dU;
  args.dg1 = dg1;
  args.dg1_edge = neighbours.rows;
  args.dw = edges.dw;
  args.n1 = n1_;
  args.n2 = n2_;
  args.fresh = !neighbours.written;
  queue.launch(backward_, frame.centres, cuda::edge_threads, 0, args);
  neighbours.written = true;
}

template class G1G1<float>;
template class G1G1<double>;

}  // namespace dpa2::gpu
