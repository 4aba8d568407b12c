#include "gpu/messages.hpp"

#include "cuda/messages.hpp"
#include "error.hpp"

namespace dpa2::gpu {

namespace {

/// What both kernels take of a frame, of a layer's input and of a model.
template <class Args, class T>
Args arguments(const Frame& frame, const LayerInput<T>& in, int n1, int n2, int nsel, bool smooth, bool root) {
  Args args{};
  args.start = frame.repformer.start;
  args.j = frame.repformer.j;
  args.g1 = in.g1;
  args.g2 = in.g2;
  args.h2 = in.h2;
  args.w = in.w;
  args.cat_conv = args.cat_grrg = args.cat_drrd = -1;
  args.n1 = n1;
  args.n2 = n2;
  args.nsel = nsel;
  args.smooth = smooth;
  args.root = root;
  return args;
}

}  // namespace

template <class T>
Messages<T>::Messages(const FoldedLayer& layer, const Config& config, Loader& loader)
    : forward_(loader.function("messages.cu", "messages", numbers_of_edges(config.repformer.g2_dim))),
      backward_(loader.function("messages.cu", "messages_backward", numbers_of_edges(config.repformer.g2_dim))),
      cat_(cat_layout(layer.linear1)),
      conv_(layer.has.conv),
      out_conv_(layer.has.out_conv),
      grrg_(layer.has.grrg),
      drrd_(layer.has.drrd),
      n1_(config.repformer.g1_dim),
      n2_(config.repformer.g2_dim),
      axis_(config.repformer.axis_neuron),
      nsel_(config.repformer.nsel),
      smooth_(config.smooth),
      root_(config.repformer.use_sqrt_nnei) {
  if (!out_conv_) return;
  P_ = upload_for_tiles<T>(layer.conv, loader);
  Pt_ = upload_for_tiles<T>(transposed(layer.conv), loader);
  const int at = layer.g1.index(Member::conv);
  if (at < 0) throw internal_error("the update of g1 has no member ", name_of(Member::conv));
  r_conv_ = loader.upload<T>(layer.g1.terms[static_cast<std::size_t>(at)].r);
}

template <class T>
MessageState<T> Messages<T>::keep(Queue& queue, const Frame& frame) const {
  MessageState<T> state;
  if (grrg_) state.grrg = queue.take<T>("moments of g2", std::int64_t{3} * frame.centres * n2_);
  if (drrd_) state.drrd = queue.take<T>("moments of g1", std::int64_t{3} * frame.centres * n1_);
  return state;
}

template <class T>
template <class Args>
Args Messages<T>::layer_arguments(const Frame& frame, const LayerInput<T>& in, const T* node, const MessageState<T>& state) const {
  auto args = arguments<Args>(frame, in, n1_, n2_, nsel_, smooth_, root_);
  args.node = wants_node() ? node : nullptr;
  args.grrg = state.grrg;
  args.drrd = state.drrd;
  args.axis = axis_;
  args.cat_width = cat_.width;
  args.cat_conv = cat_.conv;
  args.cat_grrg = cat_.grrg;
  args.cat_drrd = cat_.drrd;
  return args;
}

template <class T>
void Messages<T>::forward(Queue& queue, const Frame& frame, const LayerInput<T>& in, const T* node, T* conv, T* cat,
                          const MessageState<T>& state) const {
  if (!conv_ && !grrg_ && !drrd_) return;
  auto args = layer_arguments<cuda::MessagesArgs<T>>(frame, in, node, state);
  args.P = P_;
  args.conv = out_conv_ ? conv : nullptr;
  args.cat = cat;
  queue.launch(forward_, frame.centres, cuda::edge_threads, 0, args);
}

template <class T>
cuda::GatherArgs<T> Messages<T>::backward(Queue& queue, const Frame& frame, const LayerInput<T>& in, const T* node,
                                          const MessageState<T>& state, const T* dout, const T* dcat, const T* seed, EdgeGradient<T>& edges,
                                          T* dnode) const {
  cuda::GatherArgs<T> terms{};
  if (!conv_ && !grrg_ && !drrd_ && seed == nullptr && !edges.fresh) return terms;
  const bool moments = grrg_ || seed != nullptr;
  T* dgrrg = moments ? queue.take<T>("gradients of the moments of g2", std::int64_t{3} * frame.centres * n2_) : nullptr;
  T* ddrrd = drrd_ ? queue.take<T>("gradients of the moments of g1", std::int64_t{3} * frame.centres * n1_) : nullptr;
  auto args = layer_arguments<cuda::MessagesBackwardArgs<T>>(frame, in, node, state);
  args.Pt = Pt_;
  args.dout = dout;
  args.r_conv = r_conv_;
  args.dcat = dcat;
  args.seed = seed;
  args.dgrrg = dgrrg;
  args.ddrrd = ddrrd;
  args.dg2 = edges.dg2;
  args.dh2 = edges.dh2;
  args.dw = edges.dw;
  args.fresh = edges.fresh;
  queue.launch(backward_, frame.centres, cuda::edge_threads, 0, args);
  edges.fresh = false;
  queue.release(dgrrg);
  terms.g2 = in.g2;
  terms.h2 = drrd_ ? in.h2 : nullptr;
  terms.w = in.w;
  terms.P = P_;
  terms.r = r_conv_;
  terms.rows = dout;
  terms.vectors = ddrrd;
  if (wants_node()) {
    terms.node_rows = dcat + cat_.conv;
    terms.node_stride = cat_.width;
    terms.dnode = dnode;
  }
  terms.nsel = nsel_;
  terms.smooth = smooth_;
  terms.root = root_;
  return terms;
}

template <class T>
Rotation<T>::Rotation(const Config& config, Loader& loader)
    : forward_(loader.function("messages.cu", "messages", numbers_of_edges(config.repformer.g2_dim))),
      backward_(loader.function("messages.cu", "messages_backward", numbers_of_edges(config.repformer.g2_dim))),
      n1_(config.repformer.g1_dim),
      n2_(config.repformer.g2_dim),
      nsel_(config.repformer.nsel),
      smooth_(config.smooth),
      root_(config.repformer.use_sqrt_nnei) {}

template <class T>
void Rotation<T>::forward(Queue& queue, const Frame& frame, const LayerInput<T>& in, T* moments) const {
  auto args = arguments<cuda::MessagesArgs<T>>(frame, in, n1_, n2_, nsel_, smooth_, root_);
  args.grrg = moments;
  queue.launch(forward_, frame.centres, cuda::edge_threads, 0, args);
}

template <class T>
void Rotation<T>::backward(Queue& queue, const Frame& frame, const LayerInput<T>& in, const T* seed, EdgeGradient<T>& edges) const {
  T* dmoments = queue.take<T>("gradients of the rotation matrix", std::int64_t{3} * frame.centres * n2_);
  auto args = arguments<cuda::MessagesBackwardArgs<T>>(frame, in, n1_, n2_, nsel_, smooth_, root_);
  args.seed = seed;
  args.dgrrg = dmoments;
  args.dg2 = edges.dg2;
  args.dh2 = edges.dh2;
  args.dw = edges.dw;
  args.fresh = edges.fresh;
  queue.launch(backward_, frame.centres, cuda::edge_threads, 0, args);
  edges.fresh = false;
  queue.release(dmoments);
}

template class Messages<float>;
template class Messages<double>;
template class Rotation<float>;
template class Rotation<double>;

}  // namespace dpa2::gpu
