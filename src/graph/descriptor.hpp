// The descriptor of one frame, and the way back from its gradient to the edges.
#pragma once

#include <cstddef>
#include <cstdint>

#include "exchange.hpp"
#include "graph/pass.hpp"
#include "graph/plan.hpp"

namespace dpa2 {

/// The descriptors of a tile of centres, or their gradient.
template <class T>
struct Rows {
  T* g1 = nullptr;   ///< (count, n1), zero in the padding of a gradient
  T* rot = nullptr;  ///< (count, 3, n2), the rotation matrix with its columns first, zero in the padding of a gradient; null: not wanted
};

/// What is made of the descriptors of a tile, and how it depends on them. Tiles come in any order, from several threads at once.
template <class T>
class Readout {
 public:
  virtual ~Readout() = default;
  /// Whether it wants the rotation matrix, or gives a gradient of it.
  [[nodiscard]] virtual bool rotation() const { return false; }
  /// The centres i0..i1 have the descriptors `rows`. Unless null, gradient = that of what is made of them.
  virtual void tile(int i0, int i1, const Rows<const T>& rows, const Rows<T>* gradient, Arena& arena) = 0;
  /// Likewise on thread t, for those who add up gradients of weights.
  virtual void tile_of_thread(int, int i0, int i1, const Rows<const T>& rows, const Rows<T>* gradient, Arena& arena) {
    tile(i0, i1, rows, gradient, arena);
  }
};

/// Where the negative gradient goes. Of several quantities that stand beside each other atom by atom, one is written at a time: rows
/// of atoms are `quantities` times as far apart.
struct Forces {
  double* force = nullptr;        ///< (nall, 3)
  double* virial = nullptr;       ///< (9), or null
  double* atom_virial = nullptr;  ///< (nall, 9), or null
  int quantities = 1;
};

/// The sums of the threads that these come from, for a workspace whose extent has a gradient.
template <class T>
void clear_sums(Workspace<T>& ws, const Forces& out) {
  for (std::size_t s = 0; s < static_cast<std::size_t>(ws.partition.threads()); ++s) {
    const std::size_t rows = static_cast<std::size_t>(ws.partition.range(static_cast<int>(s)).rows());
    ws.force[s].zeros(3 * rows);
    ws.virial[s].zeros(9);
    if (out.atom_virial != nullptr) ws.atom_virial[s].zeros(9 * rows);
  }
}
template <class T>
void merge_sums(Workspace<T>& ws, const Forces& out) {
  ws.partition.merge(ws.force, 3, out.force, 3 * out.quantities);
  if (out.atom_virial != nullptr) ws.partition.merge(ws.atom_virial, 9, out.atom_virial, 9 * out.quantities);
  for (int k = 0; out.virial != nullptr && k < 9; ++k) {
    out.virial[k] = 0;
    for (std::size_t s = 0; s < static_cast<std::size_t>(ws.partition.threads()); ++s) out.virial[k] += ws.virial[s].data()[k];
  }
}

/// Frames, one after the other, in one workspace. Calls for a frame: begin, forward, and then either `read`, or `backward` as
/// often as there are gradients, if `begin` was told of them. Nothing of the last layer's output outlives its tile.
/// Of dual numbers everything comes with its tangent along the frame's direction; what is given out is the tangent.
template <class T>
class Descriptor {
 public:
  using Model = Prepared<Real<T>>;
  explicit Descriptor(const Prepared<Real<T>>& model) : m_(model) {}

  /// Shares out the work and makes the buffers. The frame must stay where it is. Throws out_of_memory.
  void begin(const Frame& frame, int threads, const Task& task);
  /// Everything before the last layer.
  void forward(Exchange* exchange);
  /// The last layer, tile by tile; the task has no gradient.
  void read(Readout<T>& readout);
  /// The last layer, tile by tile, and all the way back. An atom's readout depends on no other atom's rows.
  void backward(Exchange* exchange, Readout<T>& readout, const Forces& out);
  /// Likewise; gamma (nedge, 3) = the gradients of the edge vectors.
  void backward(Exchange* exchange, Readout<T>& readout, double* gamma);
  /// Likewise, down to the weights: `gradients` (threads) +=; the task has weights.
  void gradient(Readout<T>& readout, const ThreadGradients<T>& gradients);

  /// For those who read: the workspace's `values`, `gamma` and `seed` are theirs.
  Workspace<T>& workspace() noexcept { return ws_; }
  /// What a head has to know of it, and what it was made of: the same but in a hybrid one.
  [[nodiscard]] const Prepared<Real<T>>& model() const noexcept { return m_; }
  [[nodiscard]] const Model& source() const noexcept { return m_; }

  /// Throws out_of_memory when the part of an evaluation that needs no neighbours does not fit; before anything is taken.
  void require(std::int64_t natoms, const Task& task);
  /// From the next frame on goes without this (an evaluation does by itself when memory is short). Results are the same bits.
  void save(const Thrift& thrift) noexcept { thrift_ = thrift; }
  /// Bytes held, and bytes that a first evaluation takes (memory.hpp).
  [[nodiscard]] std::size_t bytes() { return ws_.held(); }
  [[nodiscard]] std::int64_t memory_estimate(const Task& task, const MemoryQuestion& question) const {
    return dpa2::memory_estimate(m_, task, question);
  }
  /// What there is to say about lists that are not the frame's.
  static void remark(const Frame&, Remarks&) {}

 private:
  [[nodiscard]] int last() const noexcept { return static_cast<int>(m_.layers.size()) - 1; }
  Tile<T> kept_tile(int layer, int i0, int i1);
  NodeTerms<T> last_terms(int count, Arena& arena);
  void last_tile(int t, int i0, int i1, Readout<T>& readout, const ThreadGradients<T>* gradients, Arena& arena);
  void layers_backward(Exchange* exchange, Readout<T>& readout, const ThreadGradients<T>* gradients = nullptr);
  template <class F>
  void for_tiles(F f);

  const Prepared<Real<T>>& m_;
  Workspace<T> ws_;
  Thrift thrift_;
  const Frame* frame_ = nullptr;
};

extern template class Descriptor<double>;
extern template class Descriptor<float>;
extern template class Descriptor<Dual<double>>;
extern template class Descriptor<Dual<float>>;

}  // namespace dpa2
