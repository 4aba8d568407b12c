#include "gpu/entry.hpp"

#include <algorithm>

#include "fold/repinit.hpp"

namespace dpa2::gpu {

namespace {

template <class T>
cuda::StatisticsArgs<T> statistics(const FoldedStatistics& s, Loader& loader) {
  return {loader.upload<T>(s.mean), loader.upload<T>(s.inv_std), static_cast<T>(s.rcut_smth), static_cast<T>(s.inv_width),
          static_cast<T>(s.protection)};
}

/// Pairs are evaluated once for both orders.
Matrix mean_of_orders(const Matrix& gate, int ntypes) {
  Matrix out(gate.rows, gate.cols);
  for (int a = 0; a < ntypes && !gate.empty(); ++a)
    for (int b = 0; b < ntypes; ++b)
      for (int c = 0; c < gate.cols; ++c) out(a * ntypes + b, c) = 0.5 * (gate(a * ntypes + b, c) + gate(b * ntypes + a, c));
  return out;
}

cuda::RepformerEdgesArgs repformer_edges(const Frame& frame, bool smooth) {
  return {frame.d, frame.r, frame.repformer.start, frame.master.start, frame.repformer.centre, frame.types, frame.centres, smooth ? 1 : 0};
}

}  // namespace

template <class T>
Entry<T>::Entry(const FoldedDescriptor& folded, const Config& config, Loader& loader)
    : net_(upload_network<T>(folded.repinit.net, config.smooth, loader)),
      repinit_statistics_(statistics<T>(folded.repinit.statistics, loader)),
      repformer_statistics_(statistics<T>(folded.g2_embed.statistics, loader)),
      inv_nsel_(static_cast<T>(folded.repinit.inv_nsel)),
      ng_(config.repinit.neuron.back()),
      axis_(config.repinit.axis_neuron),
      ntypes_(config.ntypes()),
      width_(config.repinit_dim()),
      n2_(config.repformer.g2_dim),
      one_side_(config.repinit.type_one_side),
      smooth_(config.smooth),
      weight_(loader.upload<T>(folded.g2_embed.dense.w)),
      bias_(loader.upload<T>(folded.g2_embed.dense.b)),
      direct_(config.repformer.direct_dist ? static_cast<T>(folded.g2_embed.inv_rcut) : T(0)) {
  constexpr int size = sizeof(T);
  const auto kernel = [&loader](const char* source, const char* name, const DeviceNetwork<T>& net, const EmbeddingForm& form) {
    return Kernel{form, loader.function(source, name, form.defines(net))};
  };
  // None where too much would have to be in shared memory. bytes(each, backward): of a warp, `each` as embedding_each has it.
  const auto make_series = [&loader](const char* source, const char* forward, const char* backward, const DeviceNetwork<T>& net,
                                     const cuda::SeriesArgs<T>& args, auto bytes) -> std::optional<Series> {
    const auto needed = [&](bool back) { return bytes(cuda::embedding_each(net.args.even, net.args.odd, back), back); };
    if (!SeriesKernel::fits(needed(false)) || !SeriesKernel::fits(needed(true))) return std::nullopt;
    const auto make = [&](const char* name, bool back) {
      return SeriesKernel::make(source, name, needed(back), args.gate != nullptr, net.defines, loader);
    };
    return Series{args, make(forward, false), make(backward, true)};
  };
  const Matrix padded = fold_padded_embedding(config, folded.repinit);
  if (!padded.empty()) {
    pad_G_ = loader.upload<T>(padded);
    pad_R_ = loader.upload<T>(folded.repinit.statistics.pad);
  }
  if (const auto series = upload_series<T>(folded.repinit.net, folded.repinit.net.gate, config.smooth, loader))
    series_ =
        make_series("repinit_series.cu", "repinit_series", "repinit_series_backward", net_, *series, [&series](int each, bool backward) {
          return cuda::repinit_series_bytes(series->nc, each, backward, series->gate != nullptr, size);
        });
  if (!series_) {
    const auto form = [this](bool backward) {
      return EmbeddingForm::choose(
          net_, [this, backward](int lanes) { return cuda::repinit_tile(backward, net_.gated(), lanes, size); },
          [this, backward](int lanes) { return cuda::repinit_work(ng_, net_.args.even, net_.args.odd, backward, lanes, size); });
    };
    repinit_ = kernel("repinit.cu", "repinit", net_, form(false));
    repinit_backward_ = kernel("repinit.cu", "repinit_backward", net_, form(true));
  }
  if (folded.three_body) {
    const FoldedThreeBody& f = *folded.three_body;
    ThreeBody& three = three_.emplace();
    three.net = upload_network<T>(f.net, config.smooth, loader);
    three.statistics = statistics<T>(f.statistics, loader);
    three.inv_nsel_squared = static_cast<T>(f.inv_nsel_squared);
    three.n3 = config.repinit.three_body_neuron.back();
    const Matrix vectors = columns(f.statistics.pad, 1, 1, 3);
    if (std::any_of(vectors.a.begin(), vectors.a.end(), [](double v) { return v != 0.0; })) three.pad_v = loader.upload<T>(vectors);
    if (const auto series = upload_series<T>(f.net, mean_of_orders(f.net.gate, ntypes_), config.smooth, loader)) {
      const bool gated = series->gate != nullptr;
      const int room = config.repinit.three_body_sel + 1, words = cuda::three_body_words(series->intervals, ntypes_, gated);
      if (words <= cuda::three_body_most_words)
        three.series = make_series(
            "three_body_series.cu", "three_body_series", "three_body_series_backward", three.net, *series,
            [&](int each, bool backward) { return cuda::three_body_series_bytes(room, series->nc, words, each, backward, gated, size); });
      if (three.series) {
        three.series->room = room;
        three.series->words = words;
      }
    }
    if (!three.series) {
      const auto form = [&three](bool backward) {
        const cuda::EmbeddingNetArgs<T>& net = three.net.args;
        return EmbeddingForm::choose(
            three.net, [&three, backward](int lanes) { return cuda::three_body_small(backward, three.net.gated(), lanes, size); },
            [&three, &net, backward](int lanes) { return cuda::three_body_work(three.n3, net.even, net.odd, backward, lanes, size); });
      };
      three.forward = kernel("three_body.cu", "three_body", three.net, form(false));
      three.backward = kernel("three_body.cu", "three_body_backward", three.net, form(true));
    }
  }
  const Defines act = activation_defines(folded.act);
  g2_embed_ = loader.function("g2_embed.cu", "g2_embed", act);
  g2_embed_backward_ = loader.function("g2_embed.cu", "g2_embed_backward", act);
}

template <class T>
template <class Args>
void Entry<T>::set_repinit(Args& args, const Frame& frame) const {
  args.d = frame.d;
  args.r = frame.r;
  args.start = frame.master.start;
  args.j = frame.master.j;
  args.types = frame.types;
  args.statistics = repinit_statistics_;
  args.net = net_.args;
  args.inv_nsel = inv_nsel_;
  args.centres = frame.centres;
  args.ng = ng_;
  args.axis = axis_;
  args.ntypes = ntypes_;
  args.one_side = one_side_ ? 1 : 0;
  args.d_width = width_;
}

template <class T>
template <class Args>
void Entry<T>::set_three_body(Args& args, const Frame& frame) const {
  args.d = frame.d;
  args.r = frame.r;
  args.start = frame.three.start;
  args.master_start = frame.master.start;
  args.j = frame.master.j;
  args.types = frame.types;
  args.pad = frame.pad_three;
  args.pad_types = frame.pad_types;
  args.pad_v = three_->pad_v;
  args.statistics = three_->statistics;
  args.net = three_->net.args;
  args.inv_nsel_squared = three_->inv_nsel_squared;
  args.centres = frame.centres;
  args.per_frame = frame.centres / frame.frames;
  args.n3 = three_->n3;
  args.ntypes = ntypes_;
  args.d_width = width_;
  args.offset = width_ - three_->n3;
}

template <class T>
template <class Args>
void Entry<T>::set_three_body_series(Args& args, const Frame& frame) const {
  set_three_body(args.block, frame);
  args.series = three_->series->args;
  args.room = three_->series->room;
  args.words = three_->series->words;
}

template <class T>
template <class Args>
void Entry<T>::set_g2_embed(Args& args, const Frame& frame) const {
  args.weight = weight_;
  args.bias = bias_;
  args.edges = repformer_edges(frame, smooth_);
  args.statistics = repformer_statistics_;
  args.direct = direct_;
  args.n2 = n2_;
}

template <class T>
void Entry<T>::forward(Queue& queue, const Frame& frame, EntryState<T>& state, bool gradient) const {
  const std::int64_t n = frame.centres, edges = frame.repformer.capacity;
  state.D = queue.take<T>("descriptors of the first blocks", n * width_);
  state.M = gradient ? queue.take<T>("moments", n * ng_ * 4) : nullptr;
  const auto set_repinit_forward = [&](cuda::RepinitArgs<T>& args) {
    set_repinit(args, frame);
    args.D = state.D;
    args.M = state.M;
    args.pad = frame.pad_repinit;
    args.pad_types = frame.pad_types;
    args.pad_R = pad_R_;
    args.pad_G = pad_G_;
    args.per_frame = frame.centres / frame.frames;
  };
  if (series_) {
    cuda::RepinitSeriesArgs<T> args{};
    set_repinit_forward(args.block);
    args.series = series_->args;
    series_->forward.launch(queue, n, args);
  } else {
    cuda::RepinitArgs<T> args{};
    set_repinit_forward(args);
    repinit_.form.template launch<T>(queue, repinit_.function, n, args);
  }
  if (three_ && three_->series) {
    cuda::ThreeBodySeriesArgs<T> args{};
    set_three_body_series(args, frame);
    args.block.D = state.D;
    three_->series->forward.launch(queue, n, args);
  } else if (three_) {
    cuda::ThreeBodyArgs<T> args{};
    set_three_body(args, frame);
    args.D = state.D;
    three_->forward.form.template launch<T>(queue, three_->forward.function, n, args);
  }
  state.g2 = queue.take<T>("g2", edges * n2_);
  state.h2 = queue.take<T>("h2", edges * 3);
  state.w = queue.take<T>("weights of edges", edges);
  cuda::G2EmbedArgs<T> args{};
  set_g2_embed(args, frame);
  args.g2 = state.g2;
  args.h2 = state.h2;
  args.w = state.w;
  queue.launch(g2_embed_, blocks_of(edges, cuda::g2_embed_edges), cuda::g2_embed_threads, 0, args);
}

template <class T>
void Entry<T>::backward(Queue& queue, const Frame& frame, const EntryState<T>& state, const T* dD, const T* dg2, const T* dh2, const T* dw,
                        T* gamma) const {
  // The first kernel writes the rows of all edges, the others add to those of their own: an edge belongs to one thread each time.
  const std::int64_t n = frame.centres;
  const auto set_repinit_backward = [&](cuda::RepinitBackwardArgs<T>& args) {
    set_repinit(args, frame);
    args.gamma = gamma;
    args.dD = dD;
    args.M = state.M;
  };
  if (series_) {
    cuda::RepinitSeriesBackwardArgs<T> args{};
    set_repinit_backward(args.block);
    args.series = series_->args;
    series_->backward.launch(queue, n, args);
  } else {
    cuda::RepinitBackwardArgs<T> args{};
    set_repinit_backward(args);
    repinit_backward_.form.template launch<T>(queue, repinit_backward_.function, n, args);
  }
  if (three_ && three_->series) {
    cuda::ThreeBodySeriesBackwardArgs<T> args{};
    set_three_body_series(args, frame);
    args.block.gamma = gamma;
    args.block.dD = dD;
    three_->series->backward.launch(queue, n, args);
  } else if (three_) {
    cuda::ThreeBodyBackwardArgs<T> args{};
    set_three_body(args, frame);
    args.gamma = gamma;
    args.dD = dD;
    three_->backward.form.template launch<T>(queue, three_->backward.function, n, args);
  }
  cuda::G2EmbedBackwardArgs<T> args{};
  set_g2_embed(args, frame);
  args.gamma = gamma;
  args.dg2 = dg2;
  args.dh2 = dh2;
  args.dw = dw;
  queue.launch(g2_embed_backward_, blocks_of(frame.repformer.capacity, cuda::g2_embed_backward_edges), cuda::g2_embed_threads, 0, args);
}

template class Entry<float>;
template class Entry<double>;

}  // namespace dpa2::gpu
