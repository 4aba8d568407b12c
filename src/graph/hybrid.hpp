// Hybrid descriptors: several beside each other, each with lists of its own (theory 16).
//
// What the others are to a head, g1 and the rotation matrix of an atom, is here one row of each, in the order of the descriptors. They
// are kept for all atoms: the head's gradient comes for all, and then each descriptor goes back by itself, to the edges of its lists.
// Their gradients are added up on the edges of the list that all are cut from.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "graph/descriptor.hpp"
#include "neighbors/build.hpp"
#include "neighbors/se_lists.hpp"

namespace dpa2 {

/// One descriptor in a hybrid one.
template <class R>
struct HybridPart {
  std::unique_ptr<Prepared<R>> model;
  bool network = false;     ///< dpa2, else se_e2_a or dpa1
  int column = 0, row = 0;  ///< where its numbers begin among those of an atom, and its rows in the rotation matrix
  NeighborSettings lists;   ///< of dpa2
  SeListSettings se_lists;  ///< of the others
};

template <class R>
struct PreparedHybrid {
  using Scalar = R;
  PreparedHybrid(const Config& config, Folded folded);

  Prepared<R> head;
  std::vector<HybridPart<R>> parts;
  double rcut = 0;  ///< angstrom: of the list that all are cut from
  /// Of the parts that are networks: what they exchange.
  [[nodiscard]] int widest() const noexcept;
};

/// As Descriptor, but for gradients of weights.
template <class T>
class HybridDescriptor {
 public:
  using Model = PreparedHybrid<Real<T>>;
  explicit HybridDescriptor(const Model& model);

  void begin(const Frame& frame, int threads, const Task& task);
  void forward(Exchange* exchange);
  void read(Readout<T>& readout);
  void backward(Exchange* exchange, Readout<T>& readout, const Forces& out);
  void backward(Exchange* exchange, Readout<T>& readout, double* gamma);

  Workspace<T>& workspace() noexcept { return ws_; }
  [[nodiscard]] const Prepared<Real<T>>& model() const noexcept { return m_.head; }
  [[nodiscard]] const Model& source() const noexcept { return m_; }
  void require(std::int64_t natoms, const Task& task);
  void save(const Thrift& thrift) noexcept;
  [[nodiscard]] std::size_t bytes();
  [[nodiscard]] std::int64_t memory_estimate(const Task& task, const MemoryQuestion& question) const;
  /// What there is to say about the lists of the last frame.
  void remark(const Frame& frame, Remarks& remarks) const;

 private:
  using R = Real<T>;
  struct Part {
    std::unique_ptr<Descriptor<T>> network;
    NeighborBuilder builder;
    SeLists lists;
    Frame frame;
    Buffer<double> gamma;  ///< (nedge of its list, 3)
  };
  template <class F>
  void for_tiles(F f);
  void make_lists(int threads);
  void collect(bool rotation);
  void gradients(Exchange* exchange, Readout<T>& readout, double* gamma);
  void se_forward(const HybridPart<R>& p, const Part& part, int i, T* row, T* rot, Arena& arena) const;
  void se_backward(const HybridPart<R>& p, const Part& part, int i, const T* row, const T* rot, double* gamma, Arena& arena) const;
  RepinitPad<R> padding(const HybridPart<R>& p, const Part& part, int i, Arena& arena) const;

  const Model& m_;
  Workspace<T> ws_;
  std::vector<Part> parts_;
  Buffer<T> g1_, rot_, dg1_, drot_;  ///< (nlocal, n1), (nlocal, 3, n2)
  Buffer<double> gamma_;
  const Frame* frame_ = nullptr;
  bool have_g1_ = false, have_rot_ = false;
};

extern template struct PreparedHybrid<double>;
extern template struct PreparedHybrid<float>;
extern template class HybridDescriptor<double>;
extern template class HybridDescriptor<float>;
extern template class HybridDescriptor<Dual<double>>;
extern template class HybridDescriptor<Dual<float>>;

}  // namespace dpa2
