#include "gpu/g1_update.hpp"

#include "error.hpp"
#include "gpu/activation.hpp"

namespace dpa2::gpu {

namespace {

/// The columns of m times, one by one, those of the row r.
Matrix scaled_columns(Matrix m, const Matrix& r) {
  for (int k = 0; k < m.rows; ++k)
    for (int c = 0; c < m.cols; ++c) m(k, c) *= r(0, c);
  return m;
}

}  // namespace

template <class T>
G1Update<T>::G1Update(const FoldedLayer& layer, const FoldedActivation& act, Loader& loader)
    : forward_(loader, "g1_update.cu", "g1_update", activation_defines(act), sizeof(T)),
      backward_(loader, "g1_update.cu", "g1_update_backward", activation_defines(act), sizeof(T)),
      cat_(cat_layout(layer.linear1)),
      n1_(layer.linear1.b.cols),
      a_(static_cast<T>(layer.g1.a)) {
  const auto factor = [&](Member member) -> const Matrix& {
    const int at = layer.g1.index(member);
    if (at < 0) throw internal_error("the update of g1 has no member ", name_of(member));
    return layer.g1.terms[static_cast<std::size_t>(at)].r;
  };
  if (layer.has.self) {
    self_ = upload_both<T>(layer.self.w, loader);
    self_b_ = loader.upload<T>(layer.self.b);
    self_r_ = loader.upload<T>(factor(Member::self));
  }
  if (layer.has.out_conv) conv_r_ = loader.upload<T>(factor(Member::conv));
  Matrix of_cat(cat_.width, n1_);
  for (const FoldedLinear1::Piece& piece : layer.linear1.pieces) {
    if (piece.input == Linear1Input::g1) linear_g1_ = upload_both<T>(piece.w, loader);
    if (piece.input == Linear1Input::conv) place(of_cat, piece.w, cat_.conv, 0);
    if (piece.input == Linear1Input::grrg) place(of_cat, piece.w, cat_.grrg, 0);
    if (piece.input == Linear1Input::drrd) place(of_cat, piece.w, cat_.drrd, 0);
  }
  linear_cat_ = upload_both<T>(of_cat, loader);
  linear_b_ = loader.upload<T>(layer.linear1.b);
  linear_r_ = loader.upload<T>(factor(Member::linear1));
  if (layer.local_attention) {
    const Matrix& r = factor(Member::attention);
    heads_ = layer.local_attention->value.rows / n1_;
    attention_ = upload_both<T>(scaled_columns(layer.local_attention->value, r), loader);
    attention_b_ = loader.upload<T>(scaled_columns(layer.local_attention->b, r));
  }
}

template <class T>
G1Kept<T> G1Update<T>::keep(Queue& queue, int centres) const {
  const std::int64_t size = static_cast<std::int64_t>(centres) * n1_;
  G1Kept<T> kept;
  if (self_.w != nullptr) kept.self_slope = queue.take<T>("slopes of the self MLP", size);
  kept.linear_slope = queue.take<T>("slopes of linear1", size);
  return kept;
}

template <class T>
void G1Update<T>::forward(Queue& queue, int centres, T* out, const T* g1, const T* cat, const T* conv, const T* o,
                          const G1Kept<T>& kept) const {
  cuda::G1UpdateArgs<T> args{};
  args.out = out;
  args.self_slope = kept.self_slope;
  args.linear_slope = kept.linear_slope;
  args.g1 = g1;
  args.self_w = self_.w;
  args.self_b = self_b_;
  args.self_r = self_r_;
  args.conv = conv_r_ != nullptr ? conv : nullptr;
  args.conv_r = conv_r_;
  args.cat = cat;
  args.linear_g1 = linear_g1_.w;
  args.linear_cat = linear_cat_.w;
  args.linear_b = linear_b_;
  args.linear_r = linear_r_;
  args.o = o;
  args.attention_w = attention_.w;
  args.attention_b = attention_b_;
  args.a = a_;
  args.n = centres;
  args.n1 = n1_;
  args.width = cat_.width;
  args.heads = heads_;
  forward_.launch(queue, centres, cuda::product_tiles(n1_), args);
}

template <class T>
void G1Update<T>::backward(Queue& queue, int centres, T* dg1, T* dcat, T* d_o, const T* dout, const G1Kept<T>& kept) const {
  cuda::G1UpdateBackwardArgs<T> args{};
  args.dg1 = dg1;
  args.dcat = dcat;
  args.d_o = d_o;
  args.dout = dout;
  args.self_slope = kept.self_slope;
  args.linear_slope = kept.linear_slope;
  args.self_wt = self_.wt;
  args.linear_g1t = linear_g1_.wt;
  args.linear_catt = linear_cat_.wt;
  args.attention_wt = attention_.wt;
  args.a = a_;
  args.n = centres;
  args.n1 = n1_;
  args.width = cat_.width;
  args.heads = heads_;
  const int across = cuda::product_tiles(n1_) + cuda::product_tiles(cat_.width) + cuda::product_tiles(heads_ * n1_);
  backward_.launch(queue, centres, across, args);
}

template class G1Update<float>;
template class G1Update<double>;

}  // namespace dpa2::gpu
