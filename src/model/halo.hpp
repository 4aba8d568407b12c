// An exchange of packed rows, of which the caller has said where they come from and go to.
#pragma once

#include "exchange.hpp"

namespace dpa2 {

class HaloExchange final : public Exchange {
 public:
  /// Of nlocal atoms and nall - nlocal ghosts; makes the way back. Throws invalid_input for rows that are not there, and ghosts that
  /// nobody fills. The carrier has to outlive this.
  HaloExchange(Halo halo, int nlocal, int nall);

  void forward(double* rows, int width) override { fill(rows, width); }
  void forward(float* rows, int width) override { fill(rows, width); }
  void reverse(double* rows, int width) override { add(rows, width); }
  void reverse(float* rows, int width) override { add(rows, width); }
  [[nodiscard]] const Halo* halo() const noexcept override { return &halo_; }

  /// Throws invalid_input where the atoms are others.
  void check(int nlocal, int nall) const;

 private:
  template <class T>
  void fill(T* rows, int width);
  template <class T>
  void add(T* rows, int width);

  Halo halo_;
  int nlocal_, nall_;
  std::vector<unsigned char> sent_, received_;
};

}  // namespace dpa2
