#include "fold/head.hpp"

#include "fold/pair_table.hpp"

namespace dpa2 {

namespace {

/// Rows per type of a tensor (1, ntypes, width) of the output.
Matrix rows_of(RawTensors& raw, const std::string& name, const Matrix& like) {
  Matrix m = like;
  m.a = raw.tensor(name).data;
  return m;
}

/// The first row for all.
Matrix repeated(const Matrix& m) {
  Matrix same(m.rows, m.cols);
  for (int t = 0; t < m.rows; ++t) place(same, rows(m, 0, 1, 1), t, 0);
  return same;
}

void multiply(Matrix& m, const Matrix& by) {
  for (std::size_t k = 0; k < m.a.size(); ++k) m.a[k] *= by.a[k];
}

/// The biases of polarizabilities of the output are tensors, of which only the mean of the diagonal counts.
Matrix polar_shift(RawTensors& raw, const std::vector<double>& scale) {
  const std::vector<double> tensors = raw.tensor("out_bias").data;
  Matrix shift(1, static_cast<int>(scale.size()));
  for (std::size_t t = 0; t < scale.size(); ++t) shift.a[t] = scale[t] * ((tensors[9 * t] + tensors[9 * t + 4] + tensors[9 * t + 8]) / 3.0);
  return shift;
}

}  // namespace

FoldedHead fold_head(const Config& config, RawTensors& raw) {
  const int ntypes = config.ntypes();
  const FittingConfig& fitting = config.fitting;
  FoldedHead f;
  f.bias = raw.matrix("fitting_net.bias_atom_e");
  switch (fitting.type) {
    case FittingType::ener:
    case FittingType::dos:
      add(f.bias, rows_of(raw, "out_bias", f.bias));
      break;
    case FittingType::property: {
      f.scale = rows_of(raw, "out_std", f.bias);
      Matrix out_bias = rows_of(raw, "out_bias", f.bias);
      if (!fitting.distinguish_types) {
        f.scale = repeated(f.scale);
        out_bias = repeated(out_bias);
      }
      multiply(f.bias, f.scale);
      add(f.bias, out_bias);
      break;
    }
    case FittingType::polar:
      f.scale = Matrix(ntypes, f.bias.cols);
      for (int t = 0; t < ntypes; ++t)
        for (int c = 0; c < f.scale.cols; ++c) f.scale(t, c) = fitting.scale[static_cast<std::size_t>(t)];
      multiply(f.bias, f.scale);
      if (fitting.shift_diag) f.shift = polar_shift(raw, fitting.scale);
      break;
    case FittingType::dipole:
    case FittingType::population:
      break;  // the biases of the output are not used
  }
  f.counted = fold_counted(config);
  f.vacuum = fitting.has_atom_ener;
  return f;
}

}  // namespace dpa2
