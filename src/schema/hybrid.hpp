// Hybrid descriptors in a configuration, and the descriptors that stand in them. Of the schema alone.
#pragma once

#include "schema/config.hpp"
#include "schema/json.hpp"

namespace dpa2 {

/// The value of the key `type` of a hybrid descriptor.
inline constexpr const char* hybrid_name = "hybrid";

bool is_hybrid(JsonObject& descriptor);
/// The types of the model are known.
void read_hybrid(Config& c, JsonObject& descriptor);

/// A descriptor by itself: its options, each for itself, and whether they agree.
void read_dpa2(Config& c, JsonObject& descriptor);
void check_dpa2(const Config& c);

}  // namespace dpa2
