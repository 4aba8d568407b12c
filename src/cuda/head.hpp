// Arguments of the kernels from the fitting network's numbers to outputs: shared by host and kernels.
#pragma once

namespace dpa2 {
namespace cuda {

constexpr int head_threads = 128;  ///< a warp per centre

/// The coefficients of atoms, z = (net - net without a descriptor) scale[type] + bias[type]; 0 for atoms without outputs.
template <class T>
struct CoefficientArgs {
  const T* net;            // (centres + rows without a descriptor, width)
  const double* scale;     // (ntypes, width) or null: ones
  const double* bias;      // (ntypes, width)
  const int* counted;      // (ntypes) 0: atoms without outputs
  const int* given_types;  // (centres) < 0: virtual
  const int* types;        // (centres) virtual atoms as type 0
  const int* failed;       // not 0: outputs are NaN
  int centres;
  int per_frame;  // centres of a frame
  int width;
  int vacuum;  // rows without a descriptor: 0 none, 1 one per frame, 2 one per centre
};
static_assert(sizeof(CoefficientArgs<float>) == 72 && sizeof(CoefficientArgs<double>) == 72, "fixed-width");

/// Outputs that are the coefficients.
template <class T>
struct HeadValuesArgs {
  double* out;  // (centres, width) =
  CoefficientArgs<T> z;
};
static_assert(sizeof(HeadValuesArgs<float>) == 80 && sizeof(HeadValuesArgs<double>) == 80, "fixed-width");

/// Outputs of coefficients and rotation matrices R, the transposes of C. A dipole is z R, a polarizability R^T Z R + shift[type].
template <class T>
struct TensorArgs {
  double* out;          // (centres, 3) or (centres, 9) =
  const T* C;           // (centres, 3, n2)
  const double* shift;  // (ntypes) on the diagonal of polarizabilities, or null: nothing
  CoefficientArgs<T> z;
  int n2;
  int diagonal;  // of polarizabilities, 1: Z is a diagonal (n2), else a matrix (n2, n2), of which the symmetric part counts
};
static_assert(sizeof(TensorArgs<float>) == 104 && sizeof(TensorArgs<double>) == 104, "fixed-width");

/// The gradient of sum_i seed_i . output_i.
struct SeedArgs {
  const double* seed;  // (centres, numbers of the output); with a component (centres) or null: ones
  int component;       // of one number of the output; -1: of all
  int unused;
};
static_assert(sizeof(SeedArgs) == 16, "fixed-width");

template <class T>
struct HeadValuesBackwardArgs {
  T* dnet;  // (centres, width) =
  CoefficientArgs<T> z;
  SeedArgs seed;
};
static_assert(sizeof(HeadValuesBackwardArgs<float>) == 96 && sizeof(HeadValuesBackwardArgs<double>) == 96, "fixed-width");

template <class T>
struct TensorBackwardArgs {
  T* dnet;     // (centres, width) =
  T* dC;       // (centres, 3, n2) =
  const T* C;  // (centres, 3, n2)
  CoefficientArgs<T> z;
  SeedArgs seed;
  int n2;
  int diagonal;
};
static_assert(sizeof(TensorBackwardArgs<float>) == 120 && sizeof(TensorBackwardArgs<double>) == 120, "fixed-width");

}  // namespace cuda
}  // namespace dpa2
