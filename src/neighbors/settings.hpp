// What a configuration says about neighbour lists.
#pragma once

#include <optional>

#include "neighbors/build.hpp"
#include "neighbors/se_lists.hpp"
#include "schema/config.hpp"

namespace dpa2 {

/// The part of a configuration that the neighbour search needs.
NeighborSettings neighbor_settings(const Config& config);
/// Of se_e2_a or dpa1 in a hybrid descriptor.
SeListSettings se_settings(const Config& descriptor);
/// Of a zbl model whose descriptor excludes pairs of types: the lists with those, which its table sees. None: there is no such need.
std::optional<NeighborSettings> pair_settings(const Config& config);

}  // namespace dpa2
