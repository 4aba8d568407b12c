// Arguments of the kernels that convert between the model's numbers and the caller's: shared by host and kernels.
#pragma once

namespace dpa2 {
namespace cuda {

constexpr int outputs_threads = 128;  ///< a warp per row

/// out = [g1, tebd of the type]
template <class T>
struct DescriptorRowsArgs {
  double* out;        // (rows, n1 + ntebd)
  const T* g1;        // (rows, n1)
  const T* tebd;      // (ntypes, ntebd) or null
  const int* types;   // (rows), virtual atoms as type 0
  const int* failed;  // not 0: NaN
  int rows;
  int n1;
  int ntebd;
};
static_assert(sizeof(DescriptorRowsArgs<float>) == 56 && sizeof(DescriptorRowsArgs<double>) == 56, "fixed-width");

/// dg1 = or += the first columns of seed
template <class T>
struct DescriptorSeedsArgs {
  T* dg1;              // (rows, n1)
  const double* seed;  // (rows, width)
  int rows;
  int n1;
  int width;
  int accumulate;  // 1: +=
};
static_assert(sizeof(DescriptorSeedsArgs<float>) == 32 && sizeof(DescriptorSeedsArgs<double>) == 32, "fixed-width");

/// Vector moments C and rotation matrices, which are their transposes.
template <class T>
struct RotationArgs {
  double* out;        // (rows, n2, 3)
  const T* C;         // (rows, 3, n2)
  const int* failed;  // not 0: NaN
  int rows;
  int n2;
};
static_assert(sizeof(RotationArgs<float>) == 32 && sizeof(RotationArgs<double>) == 32, "fixed-width");

/// dC = or += the seeds of rotation matrices
template <class T>
struct RotationSeedsArgs {
  T* dC;               // (rows, 3, n2)
  const double* seed;  // (rows, n2, 3)
  int rows;
  int n2;
  int accumulate;  // 1: +=
  int unused;
};
static_assert(sizeof(RotationSeedsArgs<float>) == 32 && sizeof(RotationSeedsArgs<double>) == 32, "fixed-width");

}  // namespace cuda
}  // namespace dpa2
