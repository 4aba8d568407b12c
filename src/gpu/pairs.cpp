#include "gpu/pairs.hpp"

#include <cstdint>

#include "error.hpp"
#include "gpu/activation.hpp"

namespace dpa2::gpu {

namespace {

/// Matrices of n2 by n2 beside each other, tile by tile: (heads, n2 / 32, n2 / 32, 32, 32), zero beyond n2; each of them transposed or not.
std::vector<double> in_tiles(const Matrix& m, bool transpose) {
  const int n2 = m.rows, heads = n2 > 0 ? m.cols / n2 : 0, tiles = cuda::tiles_of(n2), padded = tiles * cuda::tile;
  std::vector<double> out;
  out.reserve(static_cast<std::size_t>(heads) * static_cast<std::size_t>(padded) * static_cast<std::size_t>(padded));
  for (int h = 0; h < heads; ++h) {
    const Matrix own = columns(m, h * n2, 1, n2);
    const Matrix whole = padded_to(transpose ? transposed(own) : own, padded, padded);
    for (int b = 0; b < tiles; ++b)
      for (int c = 0; c < tiles; ++c)
        for (int x = 0; x < cuda::tile; ++x)
          for (int y = 0; y < cuda::tile; ++y) out.push_back(whole(b * cuda::tile + x, c * cuda::tile + y));
  }
  return out;
}

const Matrix& factor(const FoldedResidual& residual, Member member) {
  const int at = residual.index(member);
  if (at < 0) throw internal_error("the update of pairs has no member ", name_of(member));
  return residual.terms[static_cast<std::size_t>(at)].r;
}

Matrix times(Matrix m, const Matrix& r) {
  for (std::size_t k = 0; k < m.a.size(); ++k) m.a[k] *= r.a[k];
  return m;
}

}  // namespace

template <class T>
Pairs<T>::Pairs(const FoldedLayer& layer, const FoldedDescriptor& descriptor, const Config& config, Loader& loader)
    : n2_(config.repformer.g2_dim), eps_(static_cast<T>(config.repformer.ln_eps)), a_(static_cast<T>(layer.g2.a)) {
  const Defines act = activation_defines(descriptor.act);
  update_ = loader.function("pair_update.cu", "pair_update", act);
  update_backward_ = loader.function("pair_update.cu", "pair_update_backward", act);
  w_ = loader.upload<T>(in_tiles(layer.linear2.w, false));
  w_t_ = loader.upload<T>(in_tiles(layer.linear2.w, true));
  b_ = loader.upload<T>(layer.linear2.b);
  linear_r_ = loader.upload<T>(factor(layer.g2, Member::linear2));
  if (layer.has.g1g1) g1g1_r_ = loader.upload<T>(factor(layer.g2, Member::g1g1));
  if (!layer.pair_attention) return;
  const FoldedPairAttention& f = *layer.pair_attention;
  attention_ = loader.function("pair_attention.cu", "pair_attention");
  attention_backward_ = loader.function("pair_attention.cu", "pair_attention_backward");
  heads_ = f.query.cols / n2_;
  gate_ = config.repformer.attn2_has_gate;
  shift_ = static_cast<T>(descriptor.attention_shift);
  nsel_ = config.smooth ? config.repformer.nsel : 0;
  query_ = loader.upload<T>(in_tiles(f.query, false));
  query_t_ = loader.upload<T>(in_tiles(f.query, true));
  if (layer.has.pair_attention) {
    value_ = loader.upload<T>(in_tiles(f.value, false));
    value_t_ = loader.upload<T>(in_tiles(f.value, true));
    bias_ = loader.upload<T>(f.b);
    const Matrix& r = factor(layer.g2, Member::attention);
    gain_ = loader.upload<T>(times(f.gain, r));
    norm_shift_ = loader.upload<T>(times(f.shift, r));
  }
  if (layer.has.update_h2) {
    h2_weight_ = loader.upload<T>(f.h2);
    h2_a_ = static_cast<T>(layer.h2.a);
    h2_r_ = static_cast<T>(factor(layer.h2, Member::attention)(0, 0));
  }
}

template <class T>
template <class Args>
Args Pairs<T>::update_arguments(const Frame& frame, const LayerInput<T>& in, const PairState<T>& state) const {
  Args u{};
  u.g2 = in.g2;
  u.z = state.z;
  u.start = frame.repformer.start;
  u.w = w_;
  u.b = b_;
  u.linear_r = linear_r_;
  u.g1g1_r = g1g1_r_;
  u.gain = gain_;
  u.centres = frame.centres;
  u.n2 = n2_;
  u.a = a_;
  u.h2_a = h2_a_;
  u.h2_r = h2_r_;
  u.eps = eps_;
  return u;
}

template <class T>
void Pairs<T>::forward(Queue& queue, const Frame& frame, const LayerInput<T>& in, const T* U, T* g2_out, T* h2_out, PairState<T>& state,
                       bool gradient) const {
  const List& list = frame.repformer;
  const std::int64_t edges = list.capacity;
  T* dh = nullptr;
  if (heads_ > 0) {
    const int blocks = cuda::pair_blocks(frame.centres), size = static_cast<int>(sizeof(T));
    if (value_ != nullptr) state.z = queue.take<T>("pair attention before LayerNorm", edges * n2_);
    if (h2_weight_ != nullptr) dh = queue.take<T>("update of h2", edges * 3);
    if (gradient) {
      state.top = queue.take<T>("largest logits of the pair attention", edges * heads_);
      state.inv_sum = queue.take<T>("sums of the pair attention", edges * heads_);
    }
    const std::int64_t scratch = cuda::pair_scratch(n2_, list.most);
    T* own = scratch > 0 ? queue.take<T>("queries of the pair attention", scratch * blocks * cuda::pair_warps(heads_, size)) : nullptr;
    cuda::PairAttentionArgs<T> a{};
    a.z = state.z;
    a.dh = dh;
    a.top = state.top;
    a.inv_sum = state.inv_sum;
    a.scratch = own;
    a.g2 = in.g2;
    a.h2 = in.h2;
    a.w = in.w;
    a.start = list.start;
    a.query_t = query_t_;
    a.value = value_;
    a.bias = bias_;
    a.h2_weight = h2_weight_;
    a.centres = frame.centres;
    a.n2 = n2_;
    a.heads = heads_;
    a.gate = gate_ ? 1 : 0;
    a.nsel = nsel_;
    a.shift = shift_;
    queue.launch(attention_, blocks, cuda::pair_threads(heads_, size), static_cast<std::size_t>(cuda::pair_shared(heads_, size)), a);
    queue.release(own);
  }
  auto u = update_arguments<cuda::PairUpdateArgs<T>>(frame, in, state);
  u.out = g2_out;
  u.h2_out = h2_weight_ != nullptr ? h2_out : nullptr;
  u.h2 = in.h2;
  u.U = g1g1_r_ != nullptr ? U : nullptr;
  u.dh = dh;
  u.shift = norm_shift_;
  queue.launch(update_, blocks_of(edges, cuda::pair_update_edges), cuda::pair_update_threads,
               static_cast<std::size_t>(cuda::pair_update_shared(sizeof(T))), u);
  queue.release(dh);
  if (!gradient) {
    queue.release(state.z);
    state = {};
  }
}

template <class T>
void Pairs<T>::backward(Queue& queue, const Frame& frame, const LayerInput<T>& in, const PairState<T>& state, EdgeGradient<T>& edges,
                        T* dU) const {
  const List& list = frame.repformer;
  const std::int64_t count = list.capacity;
  if (edges.fresh) {
    queue.clear(edges.dg2, static_cast<std::size_t>(count * n2_) * sizeof(T));
    queue.clear(edges.dh2, static_cast<std::size_t>(count * 3) * sizeof(T));
    queue.clear(edges.dw, static_cast<std::size_t>(count) * sizeof(T));
    edges.fresh = false;
  }
  T* dz = value_ != nullptr ? queue.take<T>("gradient of the pair attention", count * n2_) : nullptr;
  T* ddh = h2_weight_ != nullptr ? queue.take<T>("gradient of the update of h2", count * 3) : nullptr;
  T* dlinear = n2_ > cuda::tile ? queue.take<T>("gradient of linear2", count * n2_) : nullptr;
  auto u = update_arguments<cuda::PairUpdateBackwardArgs<T>>(frame, in, state);
  u.dg2 = edges.dg2;
  u.dh2 = h2_weight_ != nullptr ? edges.dh2 : nullptr;
  u.dz = dz;
  u.dU = g1g1_r_ != nullptr ? dU : nullptr;
  u.ddh = ddh;
  u.dlinear = dlinear;
  u.w_t = w_t_;
  queue.launch(update_backward_, blocks_of(count, cuda::pair_update_edges), cuda::pair_update_threads,
               static_cast<std::size_t>(cuda::pair_update_shared(sizeof(T))), u);
  queue.release(dlinear);
  if (heads_ > 0) {
    const int blocks = cuda::pair_blocks(frame.centres), size = static_cast<int>(sizeof(T));
    const std::int64_t scratch = cuda::pair_scratch_backward(n2_, list.most);
    T* own = queue.take<T>("queries of the pair attention", scratch * blocks * cuda::pair_warps(heads_, size));
    cuda::PairAttentionBackwardArgs<T> a{};
    a.dg2 = edges.dg2;
    a.dh2 = edges.dh2;
    a.dw = edges.dw;
    a.scratch = own;
    a.dz = dz;
    a.ddh = ddh;
    a.top = state.top;
    a.inv_sum = state.inv_sum;
    a.g2 = in.g2;
    a.h2 = in.h2;
    a.w = in.w;
    a.start = list.start;
    a.query = query_;
    a.query_t = query_t_;
    a.value_t = value_t_;
    a.h2_weight = h2_weight_;
    a.centres = frame.centres;
    a.n2 = n2_;
    a.heads = heads_;
    a.gate = gate_ ? 1 : 0;
    a.most = list.most;
    a.shift = shift_;
    queue.launch(attention_backward_, blocks, cuda::pair_threads(heads_, size),
                 static_cast<std::size_t>(cuda::pair_shared_backward(heads_, size)), a);
    queue.release(own);
  }
  queue.release(dz, ddh);
}

template class Pairs<float>;
template class Pairs<double>;

}  // namespace dpa2::gpu
