#include "fold/entry.hpp"

namespace dpa2 {

namespace {

const std::string shape_matrix = "descriptor.g1_shape_tranform.matrix", transform_matrix = "descriptor.tebd_transform.matrix";

}  // namespace

FoldedEntry fold_entry(const Config& config, RawTensors& raw, const Matrix& tebd) {
  FoldedEntry f;
  if (raw.has(shape_matrix)) f.shape = raw.matrix(shape_matrix);
  if (config.add_tebd_to_repinit_out) f.type_term = product(tebd, raw.matrix(transform_matrix));
  return f;
}

void unfold_entry(RawTensors& raw, const Matrix& tebd, const FoldedEntry& gradient, Weights& to, Matrix& tebd_gradient) {
  add(to, shape_matrix, gradient.shape);
  if (gradient.type_term.empty()) return;
  const Matrix w = raw.matrix(transform_matrix);
  given(gradient.type_term, tebd.rows, w.cols, "entry.type_term");
  add(to, transform_matrix, product(transposed(tebd), gradient.type_term));
  add(tebd_gradient, product(gradient.type_term, transposed(w)));
}

}  // namespace dpa2
