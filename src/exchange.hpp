// Communication between the rows of local atoms and the rows of ghosts that other processes own (theory 13).
#pragma once

#include <vector>

namespace dpa2 {

struct Halo;

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
  /// Which rows these are, where that is known: a device packs them itself. Else null.
  [[nodiscard]] virtual const Halo* halo() const noexcept { return nullptr; }
};

/// Brings packed rows of `width` numbers of `size` bytes to other processes, and theirs here.
class Carrier {
 public:
  virtual ~Carrier() = default;
  /// sent (Halo::send, width), received = (Halo::receive, width)
  virtual void forward(const void* sent, void* received, int width, int size) = 0;
  /// The other way: sent (Halo::receive, width), received = (Halo::send, width)
  virtual void reverse(const void* sent, void* received, int width, int size) = 0;
};

/// Where the rows of ghosts come from. Every ghost is in `receive` or in `images`, once.
struct Halo {
  std::vector<int> send;     ///< local rows that other processes have as ghosts, in the order in which they are packed
  std::vector<int> receive;  ///< rows of ghosts that others own, likewise
  std::vector<int> images;   ///< rows of ghosts that are images of local atoms
  std::vector<int> owners;   ///< (images) the local rows of these atoms
  // The way back, atom by atom, so that sums have one order.
  std::vector<int> atoms;    ///< local rows that get something
  std::vector<int> begin;    ///< (atoms + 1)
  std::vector<int> sources;  ///< sources[begin[k]..begin[k + 1]]: what atoms[k] gets, packed row s that was received, or ghost row ~s
  Carrier* carrier = nullptr;
  bool on_device = false;  ///< the carrier takes memory of a device

  /// Nobody else has anything to do with these atoms.
  [[nodiscard]] bool alone() const noexcept { return send.empty() && receive.empty(); }
};

}  // namespace dpa2
