#include "neighbors/settings.hpp"

#include <algorithm>

#include "error.hpp"

namespace dpa2 {
namespace {

/// (ntypes, ntypes) symmetric, or empty where there are no pairs.
std::vector<char> excluded(const std::vector<std::pair<int, int>>& pairs, int ntypes) {
  std::vector<char> t;
  if (pairs.empty()) return t;
  const std::size_t n = static_cast<std::size_t>(ntypes);
  t.assign(n * n, 0);
  for (const auto& [a, b] : pairs) {
    if (a < 0 || b < 0 || a >= ntypes || b >= ntypes) continue;
    t[static_cast<std::size_t>(a) * n + static_cast<std::size_t>(b)] = 1;
    t[static_cast<std::size_t>(b) * n + static_cast<std::size_t>(a)] = 1;
  }
  return t;
}

/// The list that those of the descriptors in a hybrid one are cut from. They see to exclusions and coinciding atoms themselves.
NeighborSettings hybrid_settings(const Config& c) {
  NeighborSettings s;
  s.repinit = {c.rcut(), c.nsel()};
  for (const Config& d : c.base().descriptors)
    if (d.descriptor_type == "dpa2")
      s.repformer = {std::max(s.repformer.rcut, d.repformer.rcut), std::max(s.repformer.nsel, d.repformer.nsel)};
  s.env_protection = 1.0;
  s.ntypes = c.ntypes();
  return s;
}

}  // namespace

NeighborSettings neighbor_settings(const Config& c) {
  if (c.type != Combination::linear && c.hybrid()) return hybrid_settings(c);
  NeighborSettings s;
  s.kept = c.kept;
  if (c.type == Combination::linear || c.type == Combination::spin)
    throw internal_error("the parts of such a model have lists of their own");
  if (c.table) {
    s.repinit = s.repformer = {c.table->rcut, c.table->nsel};
  } else {
    const Config& network = c.base();
    s.repinit = {network.repinit.rcut, network.repinit.nsel};
    s.three = {network.repinit.three_body_rcut, network.repinit.three_body_sel};
    s.repformer = {network.repformer.rcut, network.repformer.nsel};
    s.use_three = network.repinit.use_three_body;
    s.env_protection = network.env_protection;
  }
  s.ntypes = c.ntypes();
  s.pair_excluded = excluded(c.pair_exclude_types, s.ntypes);
  s.descr_excluded = excluded(c.base().exclude_types, s.ntypes);
  s.first_virtual = c.first_virtual;
  return s;
}

SeListSettings se_settings(const Config& c) {
  SeListSettings s;
  s.block = c.descriptor_type == "dpa1" ? Block::dpa1 : Block::se_e2_a;
  s.rcut = c.repinit.rcut;
  s.nsel = c.repinit.nsel;
  s.sel = c.repinit.sel;
  s.kept = c.kept;
  s.env_protection = c.env_protection;
  s.ntypes = c.ntypes();
  s.pair_excluded = excluded(c.pair_exclude_types, s.ntypes);
  s.descr_excluded = excluded(c.exclude_types, s.ntypes);
  return s;
}

std::optional<NeighborSettings> pair_settings(const Config& config) {
  if (config.type != Combination::zbl || config.base().exclude_types.empty()) return {};
  NeighborSettings s = neighbor_settings(config);
  s.descr_excluded.clear();
  return s;
}

}  // namespace dpa2
