// Which types have outputs, as the kernels read it (cuda/counted.cuh).
#pragma once

#include <vector>

#include "fold/matrix.hpp"
#include "gpu/loader.hpp"

namespace dpa2::gpu {

/// (ntypes) of the device: 0 where the fold says 0, else 1.
inline const int* upload_counted(const Matrix& counted, Loader& loader) {
  std::vector<int> flags;
  for (const double value : counted.a) flags.push_back(value != 0.0 ? 1 : 0);
  return loader.uploaded(flags);
}

}  // namespace dpa2::gpu
