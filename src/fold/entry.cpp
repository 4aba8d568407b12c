#include "fold/entry.hpp"

namespace dpa2 {

FoldedEntry fold_entry(const Config& config, RawTensors& raw, const Matrix& tebd) {
  const std::string shape = "descriptor.g1_shape_tranform.matrix";
  FoldedEntry f;
  if (raw.has(shape)) f.shape = raw.matrix(shape);
  if (config.add_tebd_to_repinit_out) f.type_term = product(tebd, raw.matrix("descriptor.tebd_transform.matrix"));
  return f;
}

}  // namespace dpa2
