// Arguments and sizes of the way from gradients of edge vectors to results: shared by host and kernels.
#pragma once

namespace dpa2 {
namespace cuda {

constexpr int assemble_threads = 128;
constexpr int assemble_atoms = assemble_threads / 32;  ///< of a block: a warp for each
constexpr int totals_threads = 256;
constexpr int totals_columns = 10;  ///< blocks of a frame: the virial's numbers and the energy

/// Edges from either end.
struct EndsArgs {
  const double* d;      // (edges, 3)
  const int* start;     // (centres + 1)
  const int* begin;     // (atoms + 1): the edges to atom j are incoming[begin[j]..begin[j + 1]]
  const int* incoming;  // (edges)
  const int* failed;    // not 0: results are NaN; or null
  int centres;
  int atoms;
};
static_assert(sizeof(EndsArgs) == 48, "fixed-width");

/// Forces and virials of the atoms, of one component of what they are derivatives of: rows of the others lie between the rows.
template <class T>
struct AssembleArgs {
  double* force;        // (atoms, [components], 3) = what leaves a centre minus what arrives at it as a neighbour, or null
  double* virial;       // (centres, 9) = -sum over the centre's edges of gamma_k d_l, or null
  double* atom_virial;  // (atoms, [components], 9) = half of each edge's share to either end, or null
  const T* gamma;       // (edges, 3)
  EndsArgs ends;
  int components;
  int unused;
};
static_assert(sizeof(AssembleArgs<float>) == 88 && sizeof(AssembleArgs<double>) == 88, "fixed-width");

/// Atomic virials of one axis as deepmd-kit defines them (theory 9.3).
template <class T>
struct AssembleDeepmdArgs {
  double* atom_virial;    // (atoms, [components], 9) columns 3 k + axis =
  const T* seeded;        // (edges, 3) gradients of sum_a x_a[axis] e_a
  const T* plain;         // (edges, 3) and of sum_a e_a
  const double* wrapped;  // (atoms, 3) of in_box
  const int* centre;      // (edges)
  EndsArgs ends;
  int axis;
  int components;
};
static_assert(sizeof(AssembleDeepmdArgs<float>) == 96 && sizeof(AssembleDeepmdArgs<double>) == 96, "fixed-width");

/// The box of one system as the caller gave it, which deepmd-kit's virials refer to: that of the search is reduced.
struct GivenBox {
  double rows[9];     // (3, 3) angstrom
  double inverse[9];  // (3, 3) of the rows: f = x inverse
  int periodic[3];    // 0 or 1
  int unused;
};
static_assert(sizeof(GivenBox) == 160, "fixed by what the host uploads");

/// Positions in that box.
struct InBoxArgs {
  double* out;            // (centres, 3) =
  const double* coords;   // (centres, 3)
  const GivenBox* boxes;  // (frames)
  int centres;
  int per_frame;  // centres of a frame
};
static_assert(sizeof(InBoxArgs) == 32, "fixed-width");

/// One coordinate of every centre: the weights of what atoms have for these virials.
struct CoordinateArgs {
  double* out;            // (centres) =
  const double* wrapped;  // (centres, 3) of in_box
  const double* weights;  // (centres) factors, or null: ones
  int centres;
  int axis;
};
static_assert(sizeof(CoordinateArgs) == 32, "fixed-width");

/// Sums over the centres of every frame. What is null is left out.
struct TotalsArgs {
  double* energy;         // (frames) =
  double* virial;         // (frames, [components], 9) =
  double* atom_energy;    // (centres), becomes NaN where the evaluation failed
  const double* virials;  // (centres, 9)
  const int* failed;
  int per_frame;   // centres of a frame
  int components;  // of what the virial is a derivative of
};
static_assert(sizeof(TotalsArgs) == 48, "fixed-width");

/// The values of frames from those of their centres: the sums, or the means over the atoms that count.
struct ValueTotalsArgs {
  double* out;             // (frames, width) =
  const double* values;    // (centres, width), 0 where an atom does not count
  const int* counted;      // (ntypes)
  const int* given_types;  // (centres)
  const int* types;        // (centres)
  const int* failed;
  int per_frame;
  int width;
  int mean;  // 1: means, which are not a number where no atom counts
  int unused;
};
static_assert(sizeof(ValueTotalsArgs) == 64, "fixed-width");

}  // namespace cuda
}  // namespace dpa2
