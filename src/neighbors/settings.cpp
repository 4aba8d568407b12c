#include "neighbors/settings.hpp"

#include "error.hpp"

namespace dpa2 {

NeighborSettings neighbor_settings(const Config& c) {
  NeighborSettings s;
  s.kept = c.kept;
  if (c.type == Combination::linear) throw internal_error("the parts of a linear combination have lists of their own");
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
  const auto table = [&](const std::vector<std::pair<int, int>>& pairs) {
    std::vector<char> t;
    if (pairs.empty()) return t;
    const std::size_t n = static_cast<std::size_t>(s.ntypes);
    t.assign(n * n, 0);
    for (const auto& [a, b] : pairs) {
      if (a < 0 || b < 0 || a >= s.ntypes || b >= s.ntypes) continue;
      t[static_cast<std::size_t>(a) * n + static_cast<std::size_t>(b)] = 1;
      t[static_cast<std::size_t>(b) * n + static_cast<std::size_t>(a)] = 1;
    }
    return t;
  };
  s.pair_excluded = table(c.pair_exclude_types);
  s.descr_excluded = table(c.base().exclude_types);
  return s;
}

std::optional<NeighborSettings> pair_settings(const Config& config) {
  if (config.type != Combination::zbl || config.base().exclude_types.empty()) return {};
  NeighborSettings s = neighbor_settings(config);
  s.descr_excluded.clear();
  return s;
}

}  // namespace dpa2
