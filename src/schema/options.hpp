// The options of a model as data: one table per section of the configuration says which keys there are, what their values may be
// and what they are where a definition leaves them out. parse_config reads by these tables, and everybody else asks for them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "math/activation.hpp"
#include "schema/config.hpp"
#include "schema/json.hpp"

namespace dpa2 {

/// What a value may be. The bounds hold for every number of a list.
struct Values {
  std::optional<double> lowest, highest;
  bool positive = false;                     ///< above zero
  std::size_t fewest = 0, most = 1'000'000;  ///< entries of a list
  std::vector<const char*> choices;          ///< in the order of the enumerators, or of false and true
  bool types = false;                        ///< the numbers are indices of types
};

enum class Presence {
  has_default,  ///< the initial value of the member
  required,
  optional,  ///< the configuration itself may leave it out
};

template <class Section>
struct Option {
  using Member = std::variant<bool Section::*, int Section::*, double Section::*, std::string Section::*, UpdateStyle Section::*,
                              FittingType Section::*, ActivationConfig Section::*, std::optional<double> Section::*,
                              std::optional<std::string> Section::*, std::vector<int> Section::*, std::vector<double> Section::*,
                              std::vector<std::string> Section::*, std::vector<std::pair<int, int>> Section::*,
                              std::vector<std::optional<double>> Section::*, std::optional<std::vector<double>> Section::*>;
  const char* key;
  Member member;
  Values values;
  Presence presence = Presence::has_default;
};

template <class Section>
using Options = std::vector<Option<Section>>;

const Options<Config>& model_options();
/// The types alone: of the parts of a combination.
const Options<Config>& type_options();
const Options<Config>& descriptor_options();
const Options<RepinitConfig>& repinit_options();
const Options<RepformerConfig>& repformer_options();
/// What stands in a hybrid descriptor beside dpa2: options of both, of dpa1 alone, and of the block that each is.
const Options<Config>& se_options();
const Options<Config>& dpa1_options();
/// A block as dpa1 has it; the layers of attention behind it are said to be none.
struct Dpa1Config : RepinitConfig {
  int attn_layer = 0;
};
const Options<Dpa1Config>& dpa1_block_options();
/// A block as se_e2_a has it.
struct SeE2aConfig : RepinitConfig {
  SeE2aConfig() { type_one_side = true; }
};
const Options<SeE2aConfig>& se_e2_a_options();
const Options<FittingConfig>& fitting_options();
/// What networks of this type have besides.
const Options<FittingConfig>& fitting_options(FittingType type);
const Options<Config>& compression_options();
const Options<TableConfig>& table_options();
const Options<Config>& linear_options();
const Options<Config>& zbl_options();
const Options<Config>& spin_options();
const Options<PairTableConfig>& pair_table_options();

/// The value of the key `type` of a combination, and of a part that is a pair table; a model by itself has no such key.
const char* combination_name(Combination type) noexcept;
inline constexpr const char* pair_table_name = "pairtab";
/// deepmd-kit's name of a fitting network.
const char* fitting_name(FittingType type) noexcept;

struct NamedActivation {
  const char* name;
  Activation kind;
};
/// Names of activation functions; a kind may have several. silut takes a threshold behind a colon.
const std::vector<NamedActivation>& activations();

/// Parts of a combination.
inline constexpr std::size_t max_models = 100;
/// Hybrid descriptors in one another.
inline constexpr int max_depth_of_hybrids = 10;
/// Neighbours in a list.
inline constexpr int max_neighbours = 1'000'000;
/// Numbers of a table that is computed at load, from a file that may be small.
inline constexpr std::int64_t max_folded = std::int64_t{1} << 24;
/// What the table of a compressed model may have in all.
inline constexpr std::int64_t max_steps = 4'000'000, max_intervals = 1'000'000;

/// All of this: {"format_version": n, "activations": {name: whether it takes a number}, "table": its limits, "sections": {name:
/// [option]}}, an option as {"key", "kind", "presence", "null", ...}. A bound or default that it does not have is left out.
Json config_schema();

}  // namespace dpa2
