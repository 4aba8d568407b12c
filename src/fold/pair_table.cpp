#include "fold/pair_table.hpp"

#include <algorithm>
#include <utility>

namespace dpa2 {
namespace {

Matrix row(Tensor tensor) {
  Matrix m;
  m.rows = 1;
  m.cols = static_cast<int>(tensor.data.size());
  m.a = std::move(tensor.data);
  return m;
}

}  // namespace

FoldedPairTable fold_pair_table(const Config& config, RawTensors& raw) {
  const PairTableConfig& c = *config.table;
  FoldedPairTable f{{c.rmin, c.step, c.rcut, c.nspline}, {}, row(raw.tensor("out_bias"))};
  f.pieces.a = std::move(raw.tensor("tab_data").data);
  f.pieces.cols = math::pair_table_terms;
  f.pieces.rows = static_cast<int>(f.pieces.a.size() / math::pair_table_terms);
  return f;
}

FoldedShare fold_share(const Config& config, RawTensors& raw) {
  return {config.sw_rmin, config.sw_rmax, config.smin_alpha, row(raw.tensor("out_bias")), fold_counted(config)};
}

Matrix fold_counted(const Config& config) {
  Matrix counted(1, config.ntypes());
  std::fill(counted.a.begin(), counted.a.end(), 1.0);
  for (const int t : config.atom_exclude_types)
    if (t >= 0 && t < config.ntypes()) counted(0, t) = 0.0;
  return counted;
}

}  // namespace dpa2
