#include "graph/gradients.hpp"

#include <algorithm>

namespace dpa2 {
namespace {

/// The first `columns` of rows that are padded to 64 bytes.
template <class R>
Matrix plain(const R* p, int rows, int columns, int ld) {
  if (p == nullptr) return {};
  Matrix m(rows, columns);
  for (int r = 0; r < rows; ++r)
    for (int c = 0; c < columns; ++c) m(r, c) = static_cast<double>(p[static_cast<long>(r) * ld + c]);
  return m;
}
template <class R>
Matrix plain(const R* p, int rows, int columns) {
  return plain(p, rows, columns, padded<R>(columns));
}

/// Blocks of (n, columns) side by side, each with padding: those of the heads without it.
template <class R>
Matrix plain_blocks(const R* p, int nh, int n, int padding) {
  if (p == nullptr) return {};
  Matrix m(n, nh * n);
  for (int h = 0; h < nh; ++h) place(m, plain(p + static_cast<long>(h) * padding, n, n, nh * padding), 0, h * n);
  return m;
}
/// Blocks one below the other.
template <class R>
Matrix plain_stack(const R* p, int nh, int n, int padding) {
  if (p == nullptr) return {};
  Matrix m(nh * n, n);
  for (int h = 0; h < nh; ++h) place(m, plain(p + static_cast<long>(h) * padding * padding, n, n, padding), h * n, 0);
  return m;
}

template <class R>
FoldedEmbeddingNet plain_net(const EmbeddingGradient<R>& g, const EmbeddingNet<R>& net, int combinations) {
  FoldedEmbeddingNet f;
  const int rows = net.typed ? combinations : 1;
  for (int l = 0; l < net.nlayers; ++l) {
    const EmbeddingLayer<R>& layer = net.layers[l];
    FoldedHidden hidden;
    hidden.in = layer.in;
    hidden.out = layer.out;
    hidden.skip = layer.skip;
    hidden.w = l == 0 ? plain(g.w_scalar, 1, layer.out) : plain(g.w[l], layer.in, layer.out);
    if (l > 0) hidden.b = plain(g.b[l], 1, layer.out);
    hidden.idt = plain(g.idt[l], 1, layer.out);
    f.layers.push_back(std::move(hidden));
  }
  f.typed = net.typed;
  f.type_term = plain(g.type_term, rows, net.layers[0].out);
  f.type_skip = plain(g.type_skip, rows, net.layers[0].in);
  return f;
}

/// want(pointer, rows, columns) for every array of a network's gradient.
template <class R, class F>
void for_arrays(EmbeddingGradient<R>& g, const EmbeddingNet<R>& net, int combinations, F want) {
  const int rows = net.typed ? combinations : 1;
  for (int l = 0; l < net.nlayers; ++l) {
    const EmbeddingLayer<R>& layer = net.layers[l];
    if (l > 0) {
      want(g.w[l], layer.in, layer.out);
      want(g.b[l], 1, layer.out);
    }
    if (layer.idt != nullptr) want(g.idt[l], 1, layer.out);
  }
  want(g.w_scalar, 1, net.layers[0].out);
  want(g.type_term, rows, net.layers[0].out);
  if (net.type_skip != nullptr) want(g.type_skip, rows, net.layers[0].in);
}

/// The gradient of a network in double by itself.
struct NetGradient {
  EmbeddingGradient<double> g;
  std::vector<Buffer<double>> memory;
  NetGradient(const EmbeddingNet<double>& net, int combinations) {
    for_arrays(g, net, combinations, [&](double*& pointer, long rows, int columns) {
      memory.emplace_back();
      pointer = memory.back().zeros(static_cast<std::size_t>(rows) * static_cast<std::size_t>(padded<double>(columns)));
    });
  }
};

void add_to(Matrix& m, const Matrix& more) {
  for (std::size_t k = 0; k < more.a.size(); ++k) m.a[k] += more.a[k];
}

/// net += what the network gets of the gradient of its series' coefficients.
template <class R>
void add_series(FoldedEmbeddingNet& net, const TrainedSeries& series, const R* coefficients, int combinations, int threads) {
  std::vector<NetGradient> parts;
  std::vector<EmbeddingGradient<double>> g;
  for (int t = 0; t < threads; ++t) g.push_back(parts.emplace_back(series.net(), combinations).g);
  series.gradient(coefficients, g);
  for (const EmbeddingGradient<double>& part : g) {
    const FoldedEmbeddingNet more = plain_net(part, series.net(), combinations);
    for (std::size_t l = 0; l < net.layers.size(); ++l) {
      add_to(net.layers[l].w, more.layers[l].w);
      add_to(net.layers[l].b, more.layers[l].b);
      add_to(net.layers[l].idt, more.layers[l].idt);
    }
    add_to(net.type_term, more.type_term);
    add_to(net.type_skip, more.type_skip);
  }
}

FoldedResidual plain_residual(const std::vector<Member>& members) {
  FoldedResidual f;
  for (const Member member : members) f.terms.push_back({member, {}});
  return f;
}

}  // namespace

template <class R>
void Gradients<R>::want(R*& pointer, long rows, int columns) {
  places_.push_back({&pointer, size_});
  size_ += static_cast<std::size_t>(rows) * static_cast<std::size_t>(padded<R>(columns));
}

template <class R>
Gradients<R>::Gradients(const Config& config, const Prepared<R>& model)
    : config_(config), m_(model), repinit_intervals_(intervals(model.repinit.table)), three_intervals_(intervals(model.three.table)) {
  const Prepared<R>& m = m_;
  const auto net = [&](EmbeddingGradient<R>& g, const EmbeddingNet<R>& of, int combinations) {
    for_arrays(g, of, combinations, [&](R*& pointer, long rows, int columns) { want(pointer, rows, columns); });
  };
  constexpr long K = series_terms<R>;
  net(repinit.net, m.repinit.net, m.repinit.ncombinations);
  if (m.repinit_series) want(repinit.series, K * repinit_intervals_, m.repinit.ng);
  if (m.repinit.gate != nullptr) want(repinit.gate, m.repinit.ncombinations, m.repinit.ng);
  if (m.has_pad_repinit) want(pad_G, static_cast<long>(m.ntypes) * m.ntypes, m.repinit.ng);
  if (m.use_three) {
    net(three.net, m.three.net, m.ntypes * m.ntypes);
    if (m.three_series) want(three.series, K * three_intervals_, m.three.n3);
    if (m.three.gate != nullptr) want(three.gate, static_cast<long>(m.ntypes) * m.ntypes, m.three.n3);
  }
  if (!m.shape_identity) want(shape, m.shape.k, m.shape.n);
  if (m.tebd_term != nullptr) want(tebd_term, m.ntypes, m.n1);
  want(g2_w, 1, m.n2);
  want(g2_b, 1, m.n2);
  const bool residual = config.repformer.update_style == UpdateStyle::res_residual;
  layers.resize(m.layers.size());
  for (std::size_t l = 0; l < layers.size(); ++l) {
    const LayerParams<R>& p = m.layers[l];
    LayerGradients<R>& g = layers[l];
    const auto matrix = [&](R*& pointer, const Packed<R>& w) { want(pointer, w.k, w.n); };
    if (p.has.self) {
      matrix(g.self, p.self);
      want(g.self_b, 1, m.n1);
    }
    if (p.has.conv) matrix(g.P, p.P);
    matrix(g.w1, p.w1);
    want(g.b1, 1, m.n1);
    if (p.has.local_attention) {
      matrix(g.att_q, p.att_q);
      matrix(g.att_o, p.att_o);
      want(g.att_b, 1, m.n1);
    }
    for (int k = 0; residual && k < p.res1.nterms; ++k) want(g.res1[k], 1, m.n1);
    if (p.has.last) continue;
    matrix(g.w2, p.w2);
    want(g.b2, 1, m.n2);
    if (p.has.g1g1) matrix(g.gg, p.gg);
    if (p.has.pair_map()) matrix(g.pair.A, p.pair.A);
    if (p.has.pair_attention) {
      matrix(g.pair.B, p.pair.B);
      want(g.pair.bias, 1, m.n2);
      want(g.ln_gain, 1, m.n2);
      want(g.ln_bias, 1, m.n2);
    }
    if (p.has.update_h2) want(g.pair.h2, 1, p.pair.nh);
    for (int k = 0; residual && k < p.res2.nterms; ++k) want(g.res2[k], 1, m.n2);
    if (residual && p.has.update_h2) want(g.h2_r, 1, 1);
  }
  const FittingParams<R>& f = m.fitting;
  for (int l = 0; l < f.nlayers; ++l) {
    want(head.fitting.w[l], f.layers[l].w.k, f.layers[l].w.n);
    want(head.fitting.b[l], 1, f.layers[l].w.n);
    if (f.layers[l].idt != nullptr) want(head.fitting.idt[l], 1, f.layers[l].w.n);
  }
  const int last = f.nlayers > 0 ? f.layers[f.nlayers - 1].w.n : f.in;
  if (f.stride > 1)
    want(head.fitting.out, last, f.stride);
  else
    want(head.fitting.out, 1, last);
  want(head.fitting.out_b, 1, f.stride);
  if (m.concat_tebd) want(head.tebd, m.ntypes, m.tebd_dim);
  memory_.resize(size_);
  for (const Place& place : places_) *place.pointer = memory_.data() + place.at;
}

template <class R>
void Gradients<R>::add(const Gradients& other) {
  R* to = memory_.data();
  const R* from = other.memory_.data();
  for (std::size_t k = 0; k < size_; ++k) to[k] += from[k];
}

template <class R>
void Gradients<R>::finish_padding() {
  if (pad_G == nullptr) return;
  const RepinitParams<R>& p = m_.repinit;
  const Kernels<R>& k = m_.kernels;
  const int ntypes = m_.ntypes, ng = p.ng, ngp = padded<R>(ng), m = padded<R>(ntypes);
  Arena arena;
  for (int t0 = 0; t0 < ntypes; ++t0) {
    const Arena::Mark mark = arena.mark();
    R* s = arena.take<R>(m);
    int* combination = arena.take<int>(m);
    R* dG = arena.take<R>(static_cast<long>(ng) * m);
    EmbeddingTape<R> tape;
    for (int t = 0; t < m; ++t) {
      s[t] = t < ntypes ? m_.pad_R[4 * t] : R(0);
      combination[t] = t < ntypes ? (m_.one_side ? t0 : t0 * ntypes + t) : 0;
    }
    k.embedding_layout(p.net, m, true, arena, tape);
    k.embedding(p.net, m, tape, true, s, combination);
    const R* net = tape.y[p.net.nlayers - 1];
    // The switch of a padded slot is zero, and with it the gate of a smooth model.
    const bool gated = p.gate != nullptr && !p.gate_switch;
    for (int c = 0; c < ng; ++c)
      for (int t = 0; t < m; ++t) {
        const long at = static_cast<long>(c) * m + t, row = combination[t];
        R g = t < ntypes ? pad_G[(static_cast<long>(t0) * ntypes + t) * ngp + c] : R(0);
        if (gated && t < ntypes) {
          repinit.gate[row * ngp + c] += g * net[at];
          g *= R(1) + p.gate[row * ngp + c];
        }
        dG[at] = g;
      }
    k.embedding_backward(p.net, m, nullptr, &repinit.net, dG, tape, s, combination, arena);
    arena.release(mark);
  }
}

template <class R>
Folded Gradients<R>::folded(int threads) const {
  const Prepared<R>& m = m_;
  const RepformerConfig& r = config_.repformer;
  const int n1 = m.n1_real, n2 = m.n2_real, p1 = m.n1, p2 = m.n2, ntypes = m.ntypes;
  Folded out;
  FoldedDescriptor& d = out.descriptor;
  d.tebd = plain(head.tebd, ntypes, m.tebd_dim);
  d.repinit.net = plain_net(repinit.net, m.repinit.net, m.repinit.ncombinations);
  if (m.repinit_series) add_series(d.repinit.net, *m.repinit_series, repinit.series, m.repinit.ncombinations, threads);
  d.repinit.net.gate = plain(repinit.gate, m.repinit.ncombinations, m.repinit.ng);
  if (m.use_three) {
    d.three_body.emplace();
    FoldedEmbeddingNet& net = d.three_body->net = plain_net(three.net, m.three.net, ntypes * ntypes);
    if (m.three_series) add_series(net, *m.three_series, three.series, ntypes * ntypes, threads);
    const Matrix both = plain(three.gate, ntypes * ntypes, m.three.n3);  // of the mean of a pair's two orders
    net.gate = both;
    if (!both.empty())
      for (int a = 0; a < ntypes; ++a)
        for (int b = 0; b < ntypes; ++b)
          for (int k = 0; k < both.cols; ++k) net.gate(a * ntypes + b, k) = 0.5 * (both(a * ntypes + b, k) + both(b * ntypes + a, k));
  }
  d.entry.shape = plain(shape, config_.repinit_dim(), n1, p1);
  d.entry.type_term = plain(tebd_term, ntypes, n1, p1);
  d.g2_embed.dense.w = plain(g2_w, 1, n2);
  d.g2_embed.dense.b = plain(g2_b, 1, n2);
  for (std::size_t l = 0; l < layers.size(); ++l) {
    const LayerParams<R>& p = m.layers[l];
    const LayerGradients<R>& g = layers[l];
    FoldedLayer f;
    f.has = p.has;
    f.self.w = plain(g.self, n1, n1, p1);
    f.self.b = plain(g.self_b, 1, n1);
    f.conv = p.has.out_conv ? plain(g.P, n2, n1, p1) : plain(g.P, n1, n2, p2);
    const auto piece = [&](int begin, Linear1Input input, int repeat, int real, int width) {
      if (begin < 0) return;
      Matrix w(repeat * real, n1);
      for (int k = 0; k < repeat; ++k) place(w, plain(g.w1 + (begin + static_cast<long>(k) * width) * p1, real, n1, p1), k * real, 0);
      f.linear1.pieces.push_back({input, repeat, std::move(w)});
    };
    piece(p.cat_g1, Linear1Input::g1, 1, n1, p1);
    piece(p.cat_conv, Linear1Input::conv, 1, n2, p2);
    piece(p.cat_grrg, Linear1Input::grrg, r.axis_neuron, n2, p2);
    piece(p.cat_drrd, Linear1Input::drrd, r.axis_neuron, n1, p1);
    f.linear1.b = plain(g.b1, 1, n1);
    if (p.has.local_attention)
      f.local_attention =
          FoldedLocalAttention{plain_blocks(g.att_q, m.nh1, n1, p1), plain_stack(g.att_o, m.nh1, n1, p1), plain(g.att_b, 1, n1)};
    f.linear2.w = plain(g.w2, n2, n2, p2);
    f.linear2.b = plain(g.b2, 1, n2);
    f.g1g1 = plain(g.gg, n1, n2, p2);
    if (p.has.pair_map()) {
      FoldedPairAttention a;
      a.query = plain_blocks(g.pair.A, p.pair.nh, n2, p2);
      a.value = plain_blocks(g.pair.B, p.pair.nh, n2, p2);
      a.b = plain(g.pair.bias, 1, n2);
      a.gain = plain(g.ln_gain, 1, n2);
      a.shift = plain(g.ln_bias, 1, n2);
      a.h2 = transposed(plain(g.pair.h2, 1, p.pair.nh));
      f.pair_attention = std::move(a);
    }
    const auto residual = [](FoldedResidual& to, const std::vector<Member>& members, R* const* vectors, int width) {
      to = plain_residual(members);
      for (std::size_t k = 0; k < members.size(); ++k) to.terms[k].r = plain(vectors[k], 1, width);
    };
    residual(f.g1, members_g1(p.has), g.res1, n1);
    residual(f.g2, members_g2(p.has), g.res2, n2);
    residual(f.h2, members_h2(p.has), &g.h2_r, 1);
    d.layers.push_back(std::move(f));
  }
  const FittingParams<R>& f = m.fitting;
  int width = m.descriptor_dim + m.nfparam + (m.aparam_in_net ? m.naparam : 0) + m.ncase;
  for (int l = 0; l < f.nlayers; ++l) {
    const FittingLayer<R>& layer = f.layers[l];
    FoldedHidden hidden;
    hidden.in = layer.in;
    hidden.out = layer.out;
    hidden.skip = layer.skip;
    hidden.w = plain(head.fitting.w[l], layer.in, layer.out, layer.w.n);
    hidden.b = plain(head.fitting.b[l], 1, layer.out);
    hidden.idt = plain(head.fitting.idt[l], 1, layer.out);
    out.fitting.layers.push_back(std::move(hidden));
    width = layer.out;
  }
  out.fitting.out.w = f.stride > 1 ? plain(head.fitting.out, width, f.width, f.stride) : transposed(plain(head.fitting.out, 1, width));
  out.fitting.out.b = plain(head.fitting.out_b, 1, f.width);
  return out;
}

template class Gradients<double>;
template class Gradients<float>;

}  // namespace dpa2
