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

/// Forces and virials of the atoms.
template <class T>
struct AssembleArgs {
  double* force;        // (atoms, 3) = what leaves a centre minus what arrives at it as a neighbour, or null
  double* virial;       // (centres, 9) = -sum over the centre's edges of gamma_k d_l, or null
  double* atom_virial;  // (atoms, 9) = half of each edge's share to either end, or null
  const T* gamma;       // (edges, 3)
  EndsArgs ends;
};
static_assert(sizeof(AssembleArgs<float>) == 80 && sizeof(AssembleArgs<double>) == 80, "fixed-width");

/// Atomic virials of one axis as deepmd-kit defines them (theory 9.3).
template <class T>
struct AssembleDeepmdArgs {
  double* atom_virial;    // (atoms, 9) columns 3 k + axis =
  const T* seeded;        // (edges, 3) gradients of sum_a x_a[axis] e_a
  const T* plain;         // (edges, 3) and of the energy
  const double* wrapped;  // (atoms, 3) of in_box
  const int* centre;      // (edges)
  EndsArgs ends;
  int axis;
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

/// One coordinate of every centre: the weights of atomic energies for these virials.
struct CoordinateArgs {
  double* out;            // (centres) =
  const double* wrapped;  // (centres, 3) of in_box
  int centres;
  int axis;
};
static_assert(sizeof(CoordinateArgs) == 24, "fixed-width");

/// Sums over the centres of every frame. What is null is left out.
struct TotalsArgs {
  double* energy;         // (frames) =
  double* virial;         // (frames, 9) =
  double* atom_energy;    // (centres), becomes NaN where the evaluation failed
  const double* virials;  // (centres, 9)
  const int* failed;
  int per_frame;  // centres of a frame
};
static_assert(sizeof(TotalsArgs) == 48, "fixed-width");

}  // namespace cuda
}  // namespace dpa2
