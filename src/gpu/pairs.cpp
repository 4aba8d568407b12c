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

constexpr std::size_t bytes(int count) { return static_cast<std::size_t>(count); }

Matrix times(Matrix m, const Matrix& r) {
  for (std::size_t k = 0; k < m.a.size(); ++k) m.a[k] *= r.a[k];
  return m;
}

}  // namespace

template <class T>
Pairs<T>::Pairs(const FoldedLayer& layer, const FoldedDescriptor& descriptor, const Config& config, Loader& loader) {
  const int n2 = config.repformer.g2_dim;
  multiprocessors_ = loader.multiprocessors();
  const Defines act = activation_defines(descriptor.act);
  with_.n2 = n2;
  with_.a = static_cast<T>(layer.g2.a);
  with_.h2_a = 1;
  with_.eps = static_cast<T>(config.repformer.ln_eps);
  with_.linear_w = loader.upload<T>(in_tiles(layer.linear2.w, false));
  with_.linear_wt = loader.upload<T>(in_tiles(layer.linear2.w, true));
  with_.linear_b = loader.upload<T>(layer.linear2.b);
  with_.linear_r = loader.upload<T>(factor(layer.g2, Member::linear2));
  if (layer.has.g1g1) with_.g1g1_r = loader.upload<T>(factor(layer.g2, Member::g1g1));
  if (!layer.pair_attention) {
    forward_ = loader.function("pair_update.cu", "pair_update", act);
    backward_ = loader.function("pair_update.cu", "pair_update_backward", act);
    return;
  }
  fast_ = cuda::pair_layer_fast(n2, sizeof(T));
  Defines defines = act;
  defines.emplace_back("PAIR_FAST", fast_ ? "1" : "0");
  forward_ = loader.function("pair_layer.cu", "pair_layer", defines);
  backward_ = loader.function("pair_layer.cu", "pair_layer_backward", defines);
  const FoldedPairAttention& f = *layer.pair_attention;
  with_.heads = f.query.cols / n2;
  with_.gate = config.repformer.attn2_has_gate ? 1 : 0;
  with_.nsel = config.smooth ? config.repformer.nsel : 0;
  with_.shift = static_cast<T>(descriptor.attention_shift);
  with_.query = loader.upload<T>(in_tiles(f.query, false));
  with_.query_t = loader.upload<T>(in_tiles(f.query, true));
  if (layer.has.pair_attention) {
    with_.value = loader.upload<T>(in_tiles(f.value, false));
    with_.value_t = loader.upload<T>(in_tiles(f.value, true));
    with_.bias = loader.upload<T>(f.b);
    const Matrix& r = factor(layer.g2, Member::attention);
    with_.gain = loader.upload<T>(times(f.gain, r));
    with_.norm_shift = loader.upload<T>(times(f.shift, r));
  }
  if (layer.has.update_h2) {
    with_.h2_weight = loader.upload<T>(f.h2);
    with_.h2_a = static_cast<T>(layer.h2.a);
    with_.h2_r = static_cast<T>(factor(layer.h2, Member::attention)(0, 0));
  }
}

template <class T>
int Pairs<T>::resident(bool backward) const {
  constexpr int size = sizeof(T);
  return multiprocessors_ * cuda::pair_layer_resident(fast_, size, backward) / cuda::pair_layer_warps(with_.heads, size);
}

template <class T>
void Pairs<T>::forward(Queue& queue, const Frame& frame, const LayerInput<T>& in, Counters* counters, const T* U, T* g2_out,
                       T* h2_out) const {
  constexpr int size = sizeof(T);
  const List& list = frame.repformer;
  cuda::PairLayerArgs<T> a{};
  a.out = g2_out;
  a.h2_out = with_.h2_weight != nullptr ? h2_out : nullptr;
  a.g2 = in.g2;
  a.h2 = in.h2;
  a.w = in.w;
  a.U = with_.g1g1_r != nullptr ? U : nullptr;
  a.start = list.start;
  a.centres = frame.centres;
  a.most = list.most;
  a.with = with_;
  if (!attention()) {
    queue.launch(forward_, blocks_of(list.capacity, cuda::pair_update_edges), cuda::pair_update_threads,
                 bytes(cuda::pair_update_shared(size)), a);
    return;
  }
  const int numbers = cuda::pair_layer_scratch(fast_, with_.n2, with_.heads, list.most, size);
  const int blocks = cuda::pair_layer_blocks(frame.centres, numbers, size, resident(false));
  a.taken = counters->take(this->counters());
  a.scratch = queue.take<T>("scratch of the pair attention", std::int64_t{numbers} * blocks);
  queue.launch(forward_, blocks, cuda::pair_layer_threads(with_.heads, size), bytes(cuda::pair_layer_shared(fast_, with_.heads, size)), a);
  queue.release(a.scratch);
}

template <class T>
void Pairs<T>::backward(Queue& queue, const Frame& frame, const LayerInput<T>& in, Counters* counters, EdgeGradient<T>& edges,
                        T* dU) const {
  constexpr int size = sizeof(T);
  const List& list = frame.repformer;
  const std::int64_t count = list.capacity;
  if (edges.fresh) {
    queue.clear(edges.dg2, static_cast<std::size_t>(count * with_.n2) * sizeof(T));
    queue.clear(edges.dh2, static_cast<std::size_t>(count * 3) * sizeof(T));
    queue.clear(edges.dw, static_cast<std::size_t>(count) * sizeof(T));
    edges.fresh = false;
  }
  cuda::PairLayerBackwardArgs<T> a{};
  a.dg2 = edges.dg2;
  a.dh2 = edges.dh2;
  a.dw = edges.dw;
  a.dU = with_.g1g1_r != nullptr ? dU : nullptr;
  a.g2 = in.g2;
  a.h2 = in.h2;
  a.w = in.w;
  a.start = list.start;
  a.centres = frame.centres;
  a.most = list.most;
  a.with = with_;
  if (!attention()) {
    const std::int64_t blocks = blocks_of(count, cuda::pair_update_edges);
    const std::int64_t numbers = blocks * cuda::pair_update_warps * cuda::pair_update_scratch(with_.n2);
    if (numbers > 0) a.scratch = queue.take<T>("gradient of linear2", numbers);
    queue.launch(backward_, blocks, cuda::pair_update_threads, bytes(cuda::pair_update_shared(size)), a);
  } else {
    const int numbers = cuda::pair_layer_scratch_backward(fast_, with_.n2, with_.heads, list.most, size);
    const int blocks = cuda::pair_layer_blocks(frame.centres, numbers, size, resident(true));
    a.taken = counters->take(this->counters());
    a.scratch = queue.take<T>("scratch of the pair attention", std::int64_t{numbers} * blocks);
    queue.launch(backward_, blocks, cuda::pair_layer_threads(with_.heads, size),
                 bytes(cuda::pair_layer_shared_backward(fast_, with_.heads, size)), a);
  }
  queue.release(a.scratch);
}

template class Pairs<float>;
template class Pairs<double>;

}  // namespace dpa2::gpu
