#include "fold/statistics.hpp"

namespace dpa2 {

FoldedStatistics fold_statistics(const Config& config, RawTensors& raw, const std::string& block, double rcut, double rcut_smth) {
  FoldedStatistics s;
  s.rcut_smth = rcut_smth;
  s.inv_width = 1.0 / (rcut - rcut_smth);
  s.protection = config.env_protection;
  s.mean = raw.matrix(block + ".mean");
  s.stddev = raw.matrix(block + ".stddev");
  s.inv_std = s.stddev;
  for (double& v : s.inv_std.a) v = 1.0 / v;
  s.pad = s.mean;
  for (std::size_t i = 0; i < s.pad.a.size(); ++i) s.pad.a[i] = -s.pad.a[i] / s.stddev.a[i];
  return s;
}

}  // namespace dpa2
