// What a configuration says about neighbour lists.
#pragma once

#include "neighbors/build.hpp"
#include "schema/config.hpp"

namespace dpa2 {

/// The part of a configuration that the neighbour search needs.
NeighborSettings neighbor_settings(const Config& config);

}  // namespace dpa2
