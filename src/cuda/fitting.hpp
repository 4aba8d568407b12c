// Arguments of the fitting network: shared by host and kernels.
#pragma once

#include "cuda/product.hpp"

namespace dpa2 {
namespace cuda {

/// What the network sees besides g1: [tebd of the type; fparam; aparam; case], the parameters normalised. Rows beyond the centres are
/// without a descriptor (vacuum): one per centre where there are atomic parameters, else one per frame.
template <class T>
struct FittingExtra {
  const T* tebd;                 // (ntypes, ntebd)
  const int* types;              // (centres)
  const double* fparam;          // (frames, nfparam), or one row with fparam_row 0
  const double* fparam_avg;      // (nfparam)
  const double* fparam_inv_std;  // (nfparam)
  const double* aparam;          // (centres, naparam)
  const double* aparam_avg;      // (naparam)
  const double* aparam_inv_std;  // (naparam)
  const T* case_embd;            // (the others)
  int width;
  int ntebd;
  int nfparam;
  int fparam_row;
  int naparam;
  int centres;
  int per_frame;  // centres of a frame
};
static_assert(sizeof(FittingExtra<float>) == 104 && sizeof(FittingExtra<double>) == 104, "fixed-width");

/// y = phi([x, extra] w + b) idt + skip copies of [x, extra]
template <class T>
struct FittingHiddenArgs {
  T* y;                   // (rows, out)
  T* slope;               // (rows, out) phi' idt or null
  const T* x;             // (given, in): the rows beyond are zeros
  const T* w;             // (in, out) packed
  const T* extra_w;       // (extra.width, out) packed
  const T* b;             // (out)
  const T* idt;           // (out) or null
  FittingExtra<T> extra;  // of the first layer, else its width is 0
  int rows;
  int given;
  int in;
  int out;
  int skip;
};
static_assert(sizeof(FittingHiddenArgs<float>) == 184 && sizeof(FittingHiddenArgs<double>) == 184, "fixed-width");

/// dx (rows, wanted) = (dy slope) w^T + what the skip passes on; without dy, dy = seed w_out. Without slope there is no layer: dx = dy.
template <class T>
struct FittingBackwardArgs {
  T* dx;                   // (rows, wanted)
  const T* dy;             // (rows, out) or null
  const T* slope;          // (rows, out)
  const T* wt;             // (out, wanted) packed: the first columns of the transpose
  const T* w_out;          // (out)
  const double* seed;      // (rows) or null: ones
  const int* given_types;  // (rows) < 0: virtual
  const int* types;        // (rows) virtual atoms as type 0
  const int* counted;      // (ntypes) 0: atoms without energy
  int rows;
  int wanted;
  int in;  // of the layer, for the second copy of the skip
  int out;
  int skip;
};
static_assert(sizeof(FittingBackwardArgs<float>) == 96 && sizeof(FittingBackwardArgs<double>) == 96, "fixed-width");

/// energy = y w_out + b_out - (that of the row without a descriptor) + bias[type]; 0 for atoms without energy.
template <class T>
struct FittingEnergyArgs {
  double* energy;          // (centres)
  const T* y;              // (given, in): the rows beyond are zeros
  const T* w_out;          // (in + extra.width)
  const double* bias;      // (ntypes)
  const int* counted;      // (ntypes)
  const int* given_types;  // (centres) < 0: virtual
  const int* failed;       // not 0: energies are NaN
  FittingExtra<T> extra;   // without hidden layers, else its width is 0
  int given;
  int in;
  int vacuum;  // 1: rows without a descriptor follow
  T b_out;
};
static_assert(sizeof(FittingEnergyArgs<float>) == 176 && sizeof(FittingEnergyArgs<double>) == 184, "fixed-width");

constexpr int fitting_energy_threads = 128;  ///< a warp per centre

}  // namespace cuda
}  // namespace dpa2
