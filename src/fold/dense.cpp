#include "fold/dense.hpp"

#include "math/skip.hpp"

namespace dpa2 {

FoldedDense fold_dense(RawTensors& raw, const std::string& name) {
  FoldedDense d;
  d.w = raw.matrix(name + ".matrix");
  if (raw.has(name + ".bias")) d.b = raw.matrix(name + ".bias");
  return d;
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

Matrix evaluate(const FoldedHidden& layer, const FoldedActivation& act, const Matrix& x) {
  Matrix y = product(x, layer.w);
  for (int r = 0; r < y.rows; ++r)
    for (int c = 0; c < y.cols; ++c) {
      y(r, c) = evaluate(act, y(r, c) + layer.b(0, c)) * (layer.idt.empty() ? 1.0 : layer.idt(0, c));
      if (layer.skip != 0) y(r, c) += x(r, c % layer.in);
    }
  return y;
}

}  // namespace dpa2
