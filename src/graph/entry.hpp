// From the environment of a centre to the first g1 and g2, and back to the gradients of its edge vectors.
#pragma once

#include "graph/lanes.hpp"
#include "graph/pass.hpp"

namespace dpa2 {

template <class T>
class Entry : Pass<T> {
 public:
  explicit Entry(const Pass<T>& pass) : Pass<T>(pass) {}

  /// The first g1 of the centres i0..i1, and of their repformer edges the switch, h2 and the input of the g2 embedding.
  void forward(int i0, int i1, Arena& arena) const;
  /// From the gradients of those on thread t: what they add to its forces and virials, the atomic ones if wanted, or, unless null,
  /// gamma_out (nedge, 3) = the gradients of the edge vectors.
  void backward(int t, int i0, int i1, double* gamma_out, bool atom_virial, Arena& arena) const;
  /// From them what thread t adds to the gradients of the weights.
  void gradient(int t, int i0, int i1, Arena& arena) const;

 private:
  using Pass<T>::type;
  using Pass<T>::n_repformer;
  using Pass<T>::dense;
  using Pass<T>::dense_gradient;
  using Pass<T>::gradients;
  using typename Pass<T>::R;
  using Pass<T>::m_;
  using Pass<T>::k_;
  using Pass<T>::ws_;
  using Pass<T>::frame_;

  Lanes<T> three_body_lanes(int i, Arena& arena) const;
  void repformer_rows(int i, const Lanes<T>& e, Arena& arena) const;
  void repformer_rows_backward(int i, const Lanes<T>& e, T* gamma, Arena& arena) const;
  void entry_backward(int i0, int i1, T* dD, T* dy) const;
  RepinitPad<R> repinit_pad(int i) const;
  ThreeBodyPad<R> three_body_pad(int i) const;
  void backward_repformer_edges(int i, Arena& arena, int lanes, T* gamma) const;
};

extern template class Entry<double>;
extern template class Entry<float>;
extern template class Entry<Dual<double>>;
extern template class Entry<Dual<float>>;

}  // namespace dpa2
