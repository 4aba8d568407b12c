#include "gpu/local_attention.hpp"

#include "cuda/local_attention.hpp"
#include "error.hpp"

namespace dpa2::gpu {

template <class T>
LocalAttention<T>::LocalAttention(const Config& config, double attention_shift, Loader& loader)
    : forward_(loader.function("local_attention.cu", "local_attention")),
      backward_(loader.function("local_attention.cu", "local_attention_backward")),
      n1_(config.repformer.g1_dim),
      nh_(config.repformer.attn1_nhead),
      nsel_(config.smooth ? config.repformer.nsel : 0),
      shift_(static_cast<T>(attention_shift)) {}

template <class T>
LocalAttentionState<T> LocalAttention<T>::keep(Queue& queue, const Frame& frame) const {
  const std::int64_t size = std::int64_t{frame.centres} * nh_;
  return {queue.take<T>("largest logits", size), queue.take<T>("normalisations of attention", size)};
}

template <class T>
void LocalAttention<T>::forward(Queue& queue, const Frame& frame, const LayerInput<T>& in, const T* tq, T* o,
                                const LocalAttentionState<T>& state) const {
  T* logit = queue.take<T>("logits", std::int64_t{frame.repformer.capacity} * nh_);
  cuda::LocalAttentionArgs<T> args{};
  args.start = frame.repformer.start;
  args.j = frame.repformer.j;
  args.g1 = in.g1;
  args.tq = tq;
  args.w = in.w;
  args.o = o;
  args.largest = state.largest;
  args.inverse = state.inverse;
  args.logit = logit;
  args.n1 = n1_;
  args.nh = nh_;
  args.nsel = nsel_;
  args.shift = shift_;
  queue.launch(forward_, frame.centres, cuda::edge_threads, 0, args);
  queue.release(logit);
}

template <class T>
cuda::GatherArgs<T> LocalAttention<T>::backward(Queue& queue, const Frame& frame, const LayerInput<T>& in, const T* tq,
                                                const LocalAttentionState<T>& state, const T* d_o, T* dtq,
                                                const EdgeGradient<T>& edges) const {
  if (edges.fresh) throw internal_error("the attention to the neighbours adds to gradients of the edges that nothing has set");
  T* room = queue.take<T>("gradients of scores, and probabilities", std::int64_t{2} * frame.repformer.capacity * nh_);
  cuda::LocalAttentionBackwardArgs<T> args{};
  args.start = frame.repformer.start;
  args.j = frame.repformer.j;
  args.g1 = in.g1;
  args.tq = tq;
  args.w = in.w;
  args.dout = d_o;
  args.largest = state.largest;
  args.inverse = state.inverse;
  args.dtq = dtq;
  args.dw = edges.dw;
  args.room = room;
  args.n1 = n1_;
  args.nh = nh_;
  args.shift = shift_;
  queue.launch(backward_, frame.centres, cuda::edge_threads, 0, args);

  cuda::GatherArgs<T> terms{};
  terms.room = room;
  terms.queries = tq;
  terms.given = d_o;
  terms.nh = nh_;
  return terms;
}

template class LocalAttention<float>;
template class LocalAttention<double>;

}  // namespace dpa2::gpu
