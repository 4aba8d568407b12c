// What the environment matrix of a block takes besides the edges (theory 2).
#pragma once

#include <string>

#include "fold/matrix.hpp"

namespace dpa2 {

struct FoldedStatistics {
  double rcut_smth = 0, inv_width = 0, protection = 0;  ///< inv_width = 1 / (rcut - rcut_smth)
  Matrix mean, stddev, inv_std;                         ///< (ntypes, 4)
  Matrix pad;  ///< (ntypes, 4): the row of a padded slot of a fixed-width list, -mean / stddev (theory P6)

  template <class F>
  void for_each(const std::string& at, F& f) const {
    f(at + ".rcut_smth", rcut_smth);
    f(at + ".inv_width", inv_width);
    f(at + ".protection", protection);
    give(f, at + ".mean", mean);
    give(f, at + ".stddev", stddev);
    give(f, at + ".inv_std", inv_std);
    give(f, at + ".pad", pad);
  }
};

FoldedStatistics fold_statistics(const Config& config, RawTensors& raw, const std::string& block, double rcut, double rcut_smth);

}  // namespace dpa2
