// The evaluation graph: repinit, layers, fitting, and the same way back.
#pragma once

#include <vector>

#include "graph/exchange.hpp"
#include "graph/memory.hpp"
#include "graph/prepared.hpp"
#include "graph/workspace.hpp"
#include "heads/output.hpp"
#include "neighbors/edges.hpp"

namespace dpa2 {

/// One frame as the engine sees it. Arrays of nall rows cover local atoms, then ghosts (design, section 3).
struct Frame {
  const Edges* edges = nullptr;
  const int* types = nullptr;        ///< (nall), < 0 for virtual atoms
  const double* wrapped = nullptr;   ///< (nlocal, 3): coordinates inside the cell, only for AtomVirial::deepmd
  const double* fparam = nullptr;    ///< (nfparam) or null for the model's default
  const double* aparam = nullptr;    ///< (nlocal, naparam) or null
  int pad_type = 0;                  ///< type of atom 0 of the frame: padded slots carry it (specification, Q4)
};

/// Evaluates one frame after the other with one workspace; one evaluator per thread of the caller, many on one model.
template <class T>
class Evaluator {
 public:
  explicit Evaluator(const Prepared<T>& model) : m_(model), k_(model.kernels) {}

  /// Descriptor (and rotation matrix) only: no fitting, no backward.
  void descriptor(const Frame& frame, int threads, Exchange* exchange, const Outputs& out);
  /// Energies, and forces and virials where `out` asks for forces.
  void evaluate(const Frame& frame, int threads, Exchange* exchange, AtomVirial atom_virial, const Outputs& out);

  /// From the next evaluation on keeps pair features for the backward before every `layers`-th layer at most, and nothing to spare
  /// work, as an evaluation does by itself when memory is short (workspace.hpp). Results are the same bits.
  void keep_every(int layers) {
    keep_ = layers;
    generous_ = false;
  }

  /// Bytes held by the workspace.
  std::size_t bytes();
  /// Bytes that a first evaluation like this takes (memory.hpp).
  std::int64_t memory_estimate(const MemoryQuestion& question) const;
  /// Throws out_of_memory when the part of an evaluation that needs no neighbours does not fit; before anything is taken.
  void require(std::int64_t natoms, bool gradient, AtomVirial atom_virial);

 private:
  static constexpr int tile_size = 16;  ///< centres whose dense products over atoms are done together

  /// Rows of a tile of centres that a layer passes on.
  struct Tile {
    int i0 = 0, i1 = 0;
    T* g1 = nullptr;        ///< (count, n1): the output of the layer
    T* dphi_lin = nullptr;  ///< (count, n1): derivative of linear1's activation, or null without a backward
    T* dphi_self = nullptr; ///< (count, n1): that of the self MLP, or null: computed again in the backward
    int count() const { return i1 - i0; }
  };
  int type(int row) const { return frame_->types[row] < 0 ? 0 : frame_->types[row]; }
  int n_rep(int i) const { return frame_->edges->n_rep[static_cast<std::size_t>(i)]; }
  Extent extent(Count nlocal, Count nedge, Count nedge2, bool gradient, AtomVirial atom_virial) const;
  void prepare_step(const Frame& frame, int threads, bool gradient, AtomVirial atom_virial);
  void dense(int n, T* y, const T* x, long ldx, const Packed<T>& w, const T* bias, bool accumulate) const;
  template <class F>
  void for_tiles(F f);

  // entry.cpp: environment, repinit, three-body, shape transform, pair features
  void load_lanes(int i, int n, int lanes, T* d, T* r) const;
  int combinations(int i, int n, int lanes, int* combination) const;
  RepinitPad<T> repinit_pad(int i) const;
  ThreeBodyPad<T> three_body_pad(int i) const;
  void forward_entry(int i0, int i1, Arena& arena);
  void backward_entry(int t, int i0, int i1, Arena& arena, double* gamma_out);
  void backward_repformer_edges(int i, Arena& arena, int lanes, T* gamma) const;

  // repformer_forward.cpp, repformer_backward.cpp
  T kappa_n(int n) const;
  T kappa_h(int n) const;
  T pad2(int n) const { return m_.smooth ? static_cast<T>(m_.nsel2 - n) : T(0); }
  const T* h2(int layer) const { return ws_.h2[m_.has().update_h2 ? static_cast<std::size_t>(layer) : 0].data(); }
  void edge_factors(int i, T* s, T* f, const T* h2) const;
  const T* pairs(int layer, int i, Arena& arena);
  T* pairs_place(int layer, int i);
  void forward_layer(int layer, const Tile& tile, Arena& arena);
  void forward_pairs(int layer, int i, const T* g2, T* next, Arena& arena);
  void backward_layer(int layer, int t, const Tile& tile, const T* dnext, Arena& arena);
  void backward_pairs(int layer, int t, int i, const T* g2, Arena& arena);
  void rotation(int i, Arena& arena, double* out);

  // fitting_stage.cpp
  void fitting(int i0, int i1, const T* g1, T* dg1, Arena& arena);
  void last_layer(int t, int i0, int i1, const double* seed, Arena& arena);

  Tile tile_of(int layer, int i0, int i1);
  void forward(Exchange* exchange);
  void backward(Exchange* exchange, const double* seed, double* gamma_out, const Outputs& out, bool atom_virial);
  void deepmd_virial(Exchange* exchange, const Outputs& out);

  const Prepared<T>& m_;
  const Kernels<T>& k_;
  Workspace<T> ws_;
  const Frame* frame_ = nullptr;
  int keep_ = 1;          ///< of the extent: grows when memory gets short
  bool generous_ = true;  ///< of the extent: ends when memory gets short
  bool current_ = false;  ///< the g2 of the last layer, where it is not kept, has not been overwritten by its gradient yet
};

extern template class Evaluator<double>;
extern template class Evaluator<float>;

}  // namespace dpa2
