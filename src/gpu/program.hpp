// One kind of evaluation, of one size: its plan, the layout of what goes in and out, and the graph that repeats it.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <tuple>

#include "gpu/device.hpp"
#include "gpu/engine.hpp"
#include "gpu/plan.hpp"
#include "gpu/search.hpp"

namespace dpa2::gpu {

/// Sizes of a Halo: how many rows there are of each kind.
struct HaloExtent {
  int sent = -1;  ///< -1: there is no halo
  int received = 0, images = 0, atoms = 0;

  friend bool operator==(const HaloExtent& a, const HaloExtent& b) {
    return a.sent == b.sent && a.received == b.received && a.images == b.images && a.atoms == b.atoms;
  }
};

/// What the sequence of launches depends on.
struct ProgramKey {
  static constexpr int deepmd_virial = 8;  ///< bit of `request`
  int frames = 0, atoms = 0;
  int ghosts = -1;  ///< -1: not a part of a system
  int request = 0;  ///< bits of Request
  int given = 0;    ///< bits: fparam, aparam, weights, the three seeds, numbers of atoms
  int pbc = 0;      ///< bits
  HaloExtent halo;

  friend bool operator==(const ProgramKey& a, const ProgramKey& b) {
    return std::tie(a.frames, a.atoms, a.ghosts, a.request, a.given, a.pbc, a.halo) ==
           std::tie(b.frames, b.atoms, b.ghosts, b.request, b.given, b.pbc, b.halo);
  }
};

/// Atoms of all frames, and with ghosts.
inline SearchExtent extent_of(const ProgramKey& key) {
  return {key.frames, key.frames * key.atoms + std::max(key.ghosts, 0), key.frames * key.atoms};
}

/// Numbers in rows of that width: of the atoms, and with those of ghosts.
inline std::size_t count(const Input& input, std::size_t width) {
  return static_cast<std::size_t>(input.frames) * static_cast<std::size_t>(input.atoms) * width;
}
inline std::size_t count_all(const Input& input, std::size_t width) {
  return count(input, width) + (input.ghosts != nullptr ? static_cast<std::size_t>(input.ghosts->count) * width : 0);
}

/// Null where there is none.
inline const Halo* halo_of(const Input& input) {
  return input.ghosts != nullptr && input.ghosts->exchange != nullptr ? input.ghosts->exchange->halo() : nullptr;
}

ProgramKey key_of(const Input& input, const Request& request);

/// Pieces of one block of bytes, each on a boundary that suits every type.
class Layout {
 public:
  /// Where the piece begins; -1 without bytes.
  std::int64_t add(std::size_t bytes) {
    if (bytes == 0) return -1;
    const std::size_t at = bytes_;
    bytes_ += Plan::padded(bytes);
    return static_cast<std::int64_t>(at);
  }
  [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }

 private:
  std::size_t bytes_ = 0;
};

/// Of what a program reads: offsets into the input block.
struct InputLayout {
  Layout layout;
  std::int64_t cells = -1;     ///< SearchInput of every frame; always from the host
  std::int64_t boxes = -1;     ///< GivenBox of every frame, likewise
  std::size_t host_bytes = 0;  ///< the part before the arrays that may come from the device
  std::int64_t coords = -1, types = -1, ids = -1, pad_type = -1, fparam = -1, aparam = -1, weights = -1, seed_head = -1,
               seed_descriptor = -1, seed_rot_mat = -1;
  struct {
    std::int64_t send = -1, receive = -1, images = -1, owners = -1, atoms = -1, begin = -1, sources = -1;
  } halo;  ///< the lists of a Halo
};

/// Of what it writes: the status comes first.
struct OutputLayout {
  Layout layout;
  std::size_t status_bytes = 0;
  std::int64_t status = -1, value = -1, atom_value = -1, force = -1, virial = -1, atom_virial = -1, descriptor = -1, rot_mat = -1;
};

/// A graph that was instantiated, and the addresses that it was captured with.
class Graph {
 public:
  /// Ends the capture of a stream. The context must be current.
  Graph(std::shared_ptr<const Device> device, Handle capturing, std::uint64_t generation);
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  void launch(Handle stream) const { check(driver().graph_launch(executable_, stream), "launching the graph of a step"); }
  [[nodiscard]] std::uint64_t generation() const noexcept { return generation_; }

 private:
  std::shared_ptr<const Device> device_;
  Handle executable_ = nullptr;
  std::uint64_t generation_;
};

struct Program {
  ProgramKey key;
  Capacity capacity;
  bool planned = false;
  bool proven = false;  ///< an evaluation has fitted into the capacities
  int runs = 0;         ///< since it was planned
  Plan plan;
  InputLayout in;
  OutputLayout out;
  int launches = 0;
  std::unique_ptr<Graph> graph;
  std::uint64_t used = 0;  ///< for forgetting the oldest
};

}  // namespace dpa2::gpu
