// The argument struct of the kernels in small.cu.
#pragma once

namespace dpa2::cuda {

template <class T>
struct ScaleArgs {
  const double* from;  ///< (count)
  T* to;               ///< (count)
  T by;
  int count;
};
static_assert(sizeof(ScaleArgs<float>) == 24 && sizeof(ScaleArgs<double>) == 32, "as the host passes it");

}  // namespace dpa2::cuda
