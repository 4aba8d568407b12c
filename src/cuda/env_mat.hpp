// What the environment matrix of a block takes besides the edges: shared by host and kernels.
#pragma once

namespace dpa2 {
namespace cuda {

template <class T>
struct StatisticsArgs {
  const T* mean;     // (ntypes, 4)
  const T* inv_std;  // (ntypes, 4)
  T rcut_smth;
  T inv_width;  // 1/(rcut - rcut_smth)
  T protection;
};
static_assert(sizeof(StatisticsArgs<float>) == 32 && sizeof(StatisticsArgs<double>) == 40, "fixed-width");

}  // namespace cuda
}  // namespace dpa2
