#include "fold/dense.hpp"

#include "math/skip.hpp"

namespace dpa2 {

FoldedDense fold_dense(RawTensors& raw, const std::string& name) {
  FoldedDense d;
  d.w = raw.matrix(name + ".matrix");
  if (raw.has(name + ".bias")) d.b = raw.matrix(name + ".bias");
  return d;
}

void unfold_dense(const FoldedDense& gradient, const std::string& name, Weights& to) {
  add(to, name + ".matrix", gradient.w);
  add(to, name + ".bias", gradient.b);
}

FoldedHidden fold_hidden(RawTensors& raw, const std::string& name) {
  FoldedHidden h;
  h.w = raw.matrix(name + ".matrix");
  h.b = raw.matrix(name + ".bias");
  if (raw.has(name + ".idt")) h.idt = raw.matrix(name + ".idt");
  h.in = h.w.rows;
  h.out = h.w.cols;
  h.skip = math::skip_copies(h.in, h.out);
  return h;
}

void unfold_hidden(const FoldedHidden& gradient, const std::string& name, Weights& to) {
  add(to, name + ".matrix", gradient.w);
  add(to, name + ".bias", gradient.b);
  add(to, name + ".idt", gradient.idt);
}

Matrix evaluate(const FoldedHidden& layer, const FoldedActivation& act, const Matrix& x) {
  Matrix y = product(x, layer.w);
  for (int r = 0; r < y.rows; ++r)
    for (int c = 0; c < y.cols; ++c) {
      y(r, c) = evaluate(act, y(r, c) + layer.b(0, c)) * (layer.idt.empty() ? 1.0 : layer.idt(0, c));
      if (layer.skip != 0) y(r, c) += x(r, c % layer.in);
    }
  return y;
}

Matrix backward(const FoldedHidden& layer, const FoldedActivation& act, const Matrix& x, const Matrix& dy, FoldedHidden& gradient) {
  Matrix dz = product(x, layer.w);
  if (!layer.idt.empty()) gradient.idt = Matrix(1, layer.out);
  for (int r = 0; r < dz.rows; ++r)
    for (int c = 0; c < dz.cols; ++c) {
      double phi = 0, slope = 0;
      evaluate(act, dz(r, c) + layer.b(0, c), phi, slope);
      dz(r, c) = dy(r, c) * slope;
      if (layer.idt.empty()) continue;
      gradient.idt(0, c) += dy(r, c) * phi;
      dz(r, c) *= layer.idt(0, c);
    }
  gradient.w = product(transposed(x), dz);
  gradient.b = column_sums(dz);
  Matrix dx = product(dz, transposed(layer.w));
  if (layer.skip != 0)
    for (int r = 0; r < dy.rows; ++r)
      for (int c = 0; c < dy.cols; ++c) dx(r, c % layer.in) += dy(r, c);
  return dx;
}

}  // namespace dpa2
