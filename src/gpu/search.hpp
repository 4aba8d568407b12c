// The neighbour search on the device: from coordinates to the lists of a Frame, without the host reading anything in between.
//
// Arrays have room for what the host believes to be enough. Where that is wrong, or an atom cannot be used, the lists are empty,
// Frame::failed is set, and the status says what was wrong or how much is needed.
#pragma once

#include <array>
#include <cstdint>
#include <utility>

#include "cuda/search.hpp"
#include "gpu/frame.hpp"
#include "gpu/loader.hpp"
#include "gpu/queue.hpp"
#include "neighbors/build.hpp"

namespace dpa2::gpu {

/// Of a list: a little less than a number has room for, since grids are rounded up.
constexpr int most_edges = 2147480000;

/// Room of a search.
struct Capacity {
  int candidates_per_centre = 0;  ///< atoms and images within the cutoff
  int bins_per_frame = 0;         ///< fewer than there could be cost time only
  int master = 0, repformer = 0;  ///< edges of all centres

  bool operator==(const Capacity& o) const noexcept {
    return candidates_per_centre == o.candidates_per_centre && bins_per_frame == o.bins_per_frame && master == o.master &&
           repformer == o.repformer;
  }
};

/// Sizes of what is searched.
struct SearchExtent {
  int frames = 1;
  int atoms = 0;    ///< of all frames, with ghosts
  int centres = 0;  ///< of all frames; the first atoms. Fewer than atoms: one frame, open in all directions
};

/// What is searched; pointers of the device.
struct SearchBuffers {
  SearchExtent extent;
  bool open = true;                          ///< some direction of some frame is not periodic
  const double* coords = nullptr;            ///< (atoms, 3) angstrom
  const int* types = nullptr;                ///< (atoms) < 0: virtual
  const cuda::SearchInput* input = nullptr;  ///< (frames) of Search::input
  const int* ids = nullptr;       ///< (atoms) >= 0, numbers that decide between equal distances and that messages name; null: rows
  bool centres_of_edges = false;  ///< of the master list
};

class Search {
 public:
  Search(const NeighborSettings& settings, Loader& loader);

  /// Makes everything of `out`; its buffers stay until the end of the evaluation. status, systems (frames): on the device. The order of
  /// calls depends on the extent, `open`, whether there are ids, `centres_of_edges` and the capacity.
  void enqueue(Queue& queue, const SearchBuffers& in, const Capacity& capacity, Frame& out, cuda::SearchStatus* status,
               cuda::SystemStatus* systems) const;

  /// The cell of a frame of that many atoms; box (3, 3) or null. Throws invalid_input for a box that cannot be used.
  [[nodiscard]] cuda::SearchInput input(const double* box, const std::array<bool, 3>& pbc, int atoms) const;

  /// From the densities of the frames, where they are periodic, else from that of a liquid.
  [[nodiscard]] Capacity first_guess(const SearchExtent& extent, const cuda::SearchInput* inputs) const;
  /// Room for what that search has needed, and a little more. Throws invalid_input where one device cannot number the edges.
  [[nodiscard]] Capacity grown(const SearchExtent& extent, const Capacity& capacity, const cuda::SearchStatus& status) const;

  /// The same, but of the lists no more than that.
  [[nodiscard]] Capacity fitted(const SearchExtent& extent, const Capacity& capacity, const cuda::SearchStatus& status) const;
  /// Of a system in a periodic box with on average `neighbors` others within repinit's cutoff: the first guess, and what comes of it when
  /// the lists are known. Throws as `grown`.
  [[nodiscard]] std::pair<Capacity, Capacity> expected(const SearchExtent& extent, double neighbors) const;

  /// Throws what the CPU says of the first frame with something that cannot be used. inputs, systems: (frames) of the host.
  void check(int frames, const cuda::SearchInput* inputs, const cuda::SystemStatus* systems) const;
  /// Of one frame.
  [[nodiscard]] Remarks remarks(const cuda::SystemStatus& system) const;

 private:
  [[nodiscard]] double radius() const { return settings_.repinit.rcut + distance_tolerance; }
  /// Edges of a centre: fewer than the block has slots where the list is cut from that of another model.
  [[nodiscard]] int most() const { return settings_.kept > 0 ? settings_.kept : settings_.repinit.nsel; }
  [[nodiscard]] int three_sel() const { return settings_.use_three ? settings_.three.nsel : 0; }

  NeighborSettings settings_;
  Function extents_, wrap_, fill_bins_, sums_, find_, store_, fill_incoming_, sort_incoming_;
  const signed char* excluded_ = nullptr;  // (ntypes, ntypes) 1 by the model + 2 by the descriptor
};

}  // namespace dpa2::gpu
