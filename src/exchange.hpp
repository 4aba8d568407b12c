// Communication between the rows of local atoms and the rows of ghosts that other processes own (theory 13).
#pragma once

namespace dpa2 {

/// The two calls are adjoint. In one process both do nothing: neighbours point to local rows.
class Exchange {
 public:
  virtual ~Exchange() = default;
  /// Fills the ghost rows of a (nall, width) array from the local rows of their owners.
  virtual void forward(double* rows, int width) = 0;
  virtual void forward(float* rows, int width) = 0;
  /// Adds the ghost rows to the local rows of their owners.
  virtual void reverse(double* rows, int width) = 0;
  virtual void reverse(float* rows, int width) = 0;
};

}  // namespace dpa2
