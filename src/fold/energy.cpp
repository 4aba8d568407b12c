#include "fold/energy.hpp"

#include <algorithm>

namespace dpa2 {

FoldedEnergy fold_energy(const Config& config, RawTensors& raw) {
  const int ntypes = config.ntypes();
  const Matrix bias = raw.matrix("fitting_net.bias_atom_e"), out_bias = raw.matrix("out_bias");
  FoldedEnergy f;
  f.bias = f.counted = Matrix(1, ntypes);
  for (std::size_t t = 0; t < f.bias.a.size(); ++t) f.bias.a[t] = bias.a[t] + out_bias.a[t];
  std::fill(f.counted.a.begin(), f.counted.a.end(), 1.0);
  for (const int t : config.atom_exclude_types)
    if (t >= 0 && t < ntypes) f.counted(0, t) = 0.0;
  f.vacuum = config.fitting.has_atom_ener;
  return f;
}

}  // namespace dpa2
