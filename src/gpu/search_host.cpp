// What the host does for a search: the cells of the frames, how much room there is, and what the status of a search means.
#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "gpu/search.hpp"
#include "math/limits.hpp"
#include "neighbors/errors.hpp"
#include "neighbors/lattice.hpp"

namespace dpa2::gpu {
namespace {

using cuda::SearchInput;
using cuda::SearchStatus;

constexpr double liquid = 0.1;  // atoms per cubic angstrom, that of water
constexpr int most_bins = 1 << 30;

double sphere(double radius) { return 4.0 / 3.0 * 3.14159265358979323846 * radius * radius * radius; }

int rounded_up(double count, int unit) { return static_cast<int>(std::min(1e9, std::ceil(count / unit) * unit)); }

// Edges of that many centres with `mean` neighbours within the cutoff, of which at most `most` are kept.
int edges(double centres, double mean, int most) {
  const double each = std::min(1.1 * mean + 4.0, static_cast<double>(most));
  return static_cast<int>(std::min(static_cast<double>(most_edges), std::ceil(centres * each)));
}

int grown_list(const char* name, double rcut, int centres, int most, int capacity, long long needed) {
  if (needed <= capacity) return capacity;
  if (needed > most_edges)
    throw invalid_input(needed, " neighbours within ", rcut, " angstrom (", name,
                        ") are more than one device can number: evaluate fewer atoms at once");
  // Numbers of edges of large systems hardly fluctuate.
  const double count = static_cast<double>(needed), room = std::max(0.02 * count, std::min(0.05 * count, 5000.0));
  const double bound = std::min(static_cast<double>(centres) * most, static_cast<double>(most_edges));
  return static_cast<int>(std::min(bound, std::ceil(count + room)));
}

}  // namespace

cuda::SearchInput Search::input(const double* box, const std::array<bool, 3>& pbc, int atoms) const {
  const ReducedLattice lattice = reduced(Box(box, pbc));
  cuda::SearchInput to{};
  double images = 1.0, widest = 0.0;
  for (std::size_t a = 0; a < 3; ++a) {
    to.heights[a] = lattice.box.face_distance()[a];
    to.periodic[a] = pbc[a] ? 1 : 0;
    for (std::size_t c = 0; c < 3; ++c) {
      to.rows[3 * a + c] = lattice.box.rows()[a][c];
      to.inverse[3 * a + c] = lattice.box.inverse()[a][c];
      to.transform[3 * a + c] = static_cast<int>(lattice.transform[a][c]);
    }
    if (!pbc[a]) continue;
    const double width = radius() / to.heights[a];
    images *= 1.0 + 2.0 * width;
    widest = std::max(widest, width);
  }
  to.volume = lattice.box.volume();
  // As on the CPU, which knows how far the atoms spread in the cell: here they fill it.
  if (!(images * atoms <= 1000.0 * atoms + 100000.0 && images * atoms < image_limit && widest < 1e5))
    throw cell_too_small(to.volume, atoms, images, radius());
  for (const int k : to.transform)
    if (3.0 * widest * std::abs(static_cast<double>(k)) > image_limit) throw too_skewed();
  return to;
}

Capacity Search::first_guess(const SearchExtent& extent, const cuda::SearchInput* inputs) const {
  const int atoms = extent.atoms / std::max(1, extent.frames), centres = extent.centres;
  // Half the radius and a little more, as in bins.cu.
  const double edge = 0.5 * radius() * (1.0 + 1e-6);
  double density = 0.0, bins = 1.0;
  bool periodic = false;  // in some direction of some frame: a centre may have more candidates than there are atoms
  for (int f = 0; f < extent.frames; ++f) {
    const cuda::SearchInput& cell = inputs[f];
    bool all = true;
    double number = 1.0;
    for (std::size_t a = 0; a < 3; ++a) {
      all = all && cell.periodic[a] != 0;
      periodic = periodic || cell.periodic[a] != 0;
      number *= std::max(1.0, std::floor(cell.heights[a] / edge));
    }
    density = std::max(density, all ? atoms / cell.volume : liquid);
    bins = std::max(bins, all ? number : static_cast<double>(atoms));
  }
  const double mean = density * sphere(settings_.repinit.rcut);
  const double far = periodic ? 1e9 : std::max(1, atoms - 1);  // no centre has more candidates
  Capacity to;
  to.candidates_per_centre = std::max(1, rounded_up(std::min(far, 1.3 * mean + 32.0), periodic ? 32 : 1));
  const double most = std::min(4.0 * atoms + 1000.0, std::floor(static_cast<double>(most_bins) / std::max(1, extent.frames)));
  to.bins_per_frame = static_cast<int>(std::max(1.0, std::min(bins, most)));
  to.master = edges(centres, std::min(far, mean), settings_.repinit.nsel);
  to.repformer = edges(centres, std::min(far, density * sphere(settings_.repformer.rcut)), settings_.repformer.nsel);
  return to;
}

Capacity Search::grown(const SearchExtent& extent, const Capacity& capacity, const cuda::SearchStatus& status) const {
  Capacity to = capacity;
  if (status.needed_candidates > capacity.candidates_per_centre) to.candidates_per_centre = rounded_up(1.1 * status.needed_candidates, 32);
  to.master = grown_list("repinit", settings_.repinit.rcut, extent.centres, settings_.repinit.nsel, capacity.master, status.needed_master);
  to.repformer = grown_list("repformer", settings_.repformer.rcut, extent.centres, settings_.repformer.nsel, capacity.repformer,
                            status.needed_repformer);
  const double most = std::min(4.0 * extent.atoms / extent.frames + 1000.0, std::floor(static_cast<double>(most_bins) / extent.frames));
  to.bins_per_frame = std::max(capacity.bins_per_frame, static_cast<int>(std::min(most, static_cast<double>(status.wanted_bins))));
  return to;
}

Capacity Search::fitted(const SearchExtent& extent, const Capacity& capacity, const cuda::SearchStatus& status) const {
  Capacity least = capacity;
  least.master = least.repformer = 0;
  return grown(extent, least, status);
}

std::pair<Capacity, Capacity> Search::expected(const SearchExtent& extent, double neighbors) const {
  const double n = extent.centres, rcut = settings_.repinit.rcut;
  SearchInput cell{};
  cell.volume = n * sphere(rcut) / neighbors;
  for (std::size_t a = 0; a < 3; ++a) {
    cell.heights[a] = std::cbrt(cell.volume);
    cell.periodic[a] = 1;
  }
  const Capacity guess = first_guess(extent, &cell);
  SearchStatus status{};
  const auto needed = [&](const ListSpec& list, int sel) {
    return static_cast<long long>(std::ceil(n * std::min(static_cast<double>(sel), neighbors * std::pow(list.rcut / rcut, 3))));
  };
  status.needed_master = needed(settings_.repinit, most());
  status.needed_repformer = needed(settings_.repformer, std::min(most(), settings_.repformer.nsel));
  return {guess, fitted(extent, guess, status)};
}

void Search::check(int frames, const cuda::SearchInput* inputs, const cuda::SystemStatus* systems) const {
  for (int f = 0; f < frames; ++f) {
    const cuda::SystemStatus& s = systems[f];
    if (s.wrong == cuda::wrong_type) throw unknown_type(s.wrong_atom, s.wrong_type, settings_.ntypes);
    if (s.wrong == cuda::wrong_place)
      for (int c = 0; c < 3; ++c)
        if (const double v = s.wrong_x[c]; !(std::abs(v) <= largest_length)) throw bad_coordinate(s.wrong_atom, c, v);
    if (s.wrong == cuda::wrong_far) {
      const cuda::SearchInput& cell = inputs[f];
      double far = 0.0;  // as wrap_atoms finds it
      for (std::size_t b = 0; b < 3; ++b) {
        double shift = 0.0;
        for (std::size_t a = 0; a < 3; ++a)
          if (cell.periodic[a] != 0)
            shift += std::floor(s.wrong_x[0] * cell.inverse[a] + s.wrong_x[1] * cell.inverse[3 + a] + s.wrong_x[2] * cell.inverse[6 + a]) *
                     cell.transform[3 * a + b];
        if (std::abs(far) < image_limit) far = shift;
      }
      throw too_far_from_cell(s.wrong_atom, far);
    }
    if (s.same_place[0] >= 0) throw same_place(s.same_place[0], s.same_place[1]);
  }
}

Remarks Search::remarks(const cuda::SystemStatus& system) const {
  Remarks to;
  const int sel[3] = {most(), three_sel(), settings_.repformer.nsel};
  const double rcut[3] = {settings_.repinit.rcut, settings_.three.rcut, settings_.repformer.rcut};
  for (int block = 0; block < 3; ++block)
    if (system.overflow_count[block] > 0)
      to.overflow.push_back(
          {static_cast<Block>(block), system.overflow_atom[block], system.overflow_count[block], sel[block], rcut[block]});
  if (system.closest[0] >= 0) to.closest = {system.closest_r, system.closest[0], system.closest[1]};
  if (system.clamped_count > 0) to.clamped = {cuda::first_number(system.clamped), system.clamped_count};
  return to;
}

}  // namespace dpa2::gpu
