#include "gpu/g1g1.hpp"

#include "cuda/g1g1.hpp"
#include "error.hpp"

namespace dpa2::gpu {

template <class T>
G1G1<T>::G1G1(const FoldedLayer& layer, Loader& loader)
    : forward_(loader.function("g1g1.cu", "g1g1")),
      backward_(loader.function("g1g1.cu", "g1g1_backward")),
      gather_(layer.g1g1.rows, layer.g1g1.cols, loader),
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
void G1G1<T>::backward(Queue& queue, const Frame& frame, const LayerInput<T>& in, const T* dU, const EdgeGradient<T>& edges,
                       cuda::GatherArgs<T> terms, NeighbourGradient<T>& neighbours) const {
  if (edges.fresh) throw internal_error("g1g1 adds to gradients of the edges that nothing has set");
  cuda::G1G1BackwardArgs<T> args{};
  args.start = frame.repformer.start;
  args.j = frame.repformer.j;
  args.g1 = in.g1;
  args.Wt = Wt_;
  args.w = in.w;
  args.dU = dU;
  args.dg1 = neighbours.dg1;
  args.dw = edges.dw;
  args.n1 = n1_;
  args.n2 = n2_;
  queue.launch(backward_, frame.centres, cuda::edge_threads, 0, args);

  terms.g2 = dU;
  terms.w = in.w;
  terms.P = Wt_;
  terms.rows = in.g1;
  terms.nsel = terms.smooth = 1;  // no normalisation
  gather_.run(queue, frame, terms, neighbours);
}

template class G1G1<float>;
template class G1G1<double>;

}  // namespace dpa2::gpu
