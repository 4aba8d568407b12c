// Every buffer of an evaluation, sized from the edges and reused between steps.
//
// Kept between forward and backward, in the precision of the model (n1, n2 padded widths; edges of the repformer list):
//
//   what                               per atom                     per repformer edge
//   g1 before every layer and after    (nlayers + 1) n1
//   derivative of phi at the entry     n1
//   derivatives in self MLP, linear1   2 nlayers n1
//   g2 before every layer                                           nlayers n2
//   h2 before every layer                                           3 (3 nlayers with update_h2)
//   switch, scalar of the embedding                                 2
//   dE/dg1 after the fitting           n1
//
// Everything else (repinit's activations, attention scores, moments, projections) is recomputed per centre in the backward
// from these, in the scratch memory of the thread.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "cpu/arena.hpp"
#include "model/buffer.hpp"
#include "model/parallel.hpp"

namespace dpa2 {

template <class T>
struct Workspace {
  std::vector<std::unique_ptr<Arena>> arenas;  ///< one per thread
  Partition partition;
  Buffer<std::int64_t> start2;                 ///< (nlocal + 1): first repformer edge of a centre

  // kept between forward and backward
  std::vector<Buffer<T>> g1;                   ///< [nlayers + 1] (nall, n1)
  Buffer<T> dphi_entry;                        ///< (nlocal, n1)
  std::vector<Buffer<T>> dphi_self, dphi_lin;  ///< [nlayers] (nlocal, n1)
  std::vector<Buffer<T>> g2;                   ///< [nlayers] (nedge2, n2)
  std::vector<Buffer<T>> h2;                   ///< [nlayers or 1] (nedge2, 3)
  Buffer<T> w, x;                              ///< (nedge2): switch or 1; input of the g2 embedding
  Buffer<T> dE_dg1;                            ///< (nlocal, n1): of each atom's own energy
  Buffer<double> atom_energy;                  ///< (nlocal)

  // the backward
  Buffer<T> dg1, dg2, dh2, dw;                 ///< (nall, n1), (nedge2, n2), (nedge2, 3), (nedge2)
  std::vector<Buffer<T>> acc;                  ///< per thread (rows, n1): what the thread adds to dg1
  std::vector<Buffer<double>> force, atom_virial, virial;  ///< per thread (rows, 3), (rows, 9), (9)
  Buffer<double> gamma[4];                     ///< (nedge, 3), only for deepmd-kit's atomic virial
};

}  // namespace dpa2
