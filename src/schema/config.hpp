// The configuration of a model: the canonical JSON of the native file as plain structures.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "math/activation.hpp"

namespace dpa2 {

/// The version of the native format and of the configuration in it.
inline constexpr int format_version = 1;

/// An activation function by kind; the threshold belongs to silut.
struct ActivationConfig {
  Activation kind = Activation::tanh;
  double threshold = 3.0;
};

enum class UpdateStyle { res_avg, res_incr, res_residual };

/// Initial values are deepmd-kit's defaults; lengths and numbers of neighbours have none (options.cpp says which). The descriptors
/// se_e2_a and dpa1 without attention, which stand in hybrid ones, are such a block alone.
struct RepinitConfig {
  double rcut = 0, rcut_smth = 0;  ///< angstrom
  int nsel = 0;
  std::vector<int> sel;  ///< of se_e2_a: (ntypes), how many neighbours of each type; nsel is their sum
  std::vector<int> neuron{25, 50, 100};
  int axis_neuron = 16;
  int tebd_dim = 8;
  bool strip = false;  ///< tebd_input_mode: "strip" or "concat"
  ActivationConfig activation;
  bool resnet_dt = false, type_one_side = false;  ///< of se_e2_a one-sided by default
  bool use_three_body = false;
  std::vector<int> three_body_neuron{2, 4, 8};
  double three_body_rcut = 4, three_body_rcut_smth = 0.5;
  int three_body_sel = 40;
};

struct RepformerConfig {
  double rcut = 0, rcut_smth = 0;
  int nsel = 0;
  int nlayers = 3, g1_dim = 128, g2_dim = 16, axis_neuron = 4;
  bool direct_dist = false;
  bool update_g1_has_conv = true, update_g1_has_drrd = true, update_g1_has_grrg = true, update_g1_has_attn = true;
  bool update_g2_has_g1g1 = true, update_g2_has_attn = true, update_h2 = false;
  int attn1_hidden = 64, attn1_nhead = 4, attn2_hidden = 16, attn2_nhead = 4;
  bool attn2_has_gate = false;
  ActivationConfig activation;
  UpdateStyle update_style = UpdateStyle::res_avg;
  bool use_sqrt_nnei = true, g1_out_conv = true, g1_out_mlp = true;
  double ln_eps = 1e-5;
};

/// What the fitting network's output is; in the order of deepmd-kit's names.
enum class FittingType { ener, dipole, polar, dos, property, population };

struct FittingConfig {
  FittingType type = FittingType::ener;
  std::string precision = "float64";
  std::vector<int> neuron{120, 120, 120};
  ActivationConfig activation;
  bool resnet_dt = true;
  int numb_fparam = 0, numb_aparam = 0;
  std::optional<std::vector<double>> default_fparam;
  int dim_case_embd = 0;
  bool use_aparam_as_mask = false;
  std::vector<std::optional<double>> atom_ener;
  bool has_atom_ener = false;  ///< any entry of atom_ener is set
  // Of single types of fitting networks.
  bool fit_diag = true, shift_diag = true;  ///< polar: a coefficient per row of the rotation matrix, else a matrix of them
  std::vector<double> scale;                ///< polar: (ntypes)
  int numb_dos = 300;
  std::string property_name;
  int task_dim = 1;
  bool intensive = false;         ///< property: the mean of the atoms that count, else their sum
  bool distinguish_types = true;  ///< property: every type has its own bias and scale, else all have those of type 0

  /// Numbers that the network gives per atom; n2: rows of the rotation matrix.
  [[nodiscard]] std::int64_t width(int n2) const;
  /// Numbers of the model's output per atom.
  [[nodiscard]] int values() const;
};

/// The grid of a table of a compressed model: from `lower` on, segments of intervals that are a whole number of steps long.
struct TableConfig {
  double lower = 0, step = 0;
  std::vector<std::pair<int, int>> segments;  ///< number of intervals, steps in each

  std::int64_t intervals() const;
  std::int64_t cells() const;  ///< steps in all
};

/// Energies of pairs by distance: cubic pieces of one length.
struct PairTableConfig {
  double rcut = 0;  ///< angstrom: no energy from here on
  int nsel = 0;
  double rmin = 0, step = 0;  ///< angstrom: where the first piece begins, and how long each is
  int nspline = 0;            ///< number of pieces
};

/// How energies are made of those of other models: of several, or of one that sees spins as atoms of their own.
enum class Combination { none, linear, zbl, spin };

/// The parameters of frames and atoms that a model takes: what its networks see of them, all of which see the same.
struct Parameters {
  int fparam = 0, aparam = 0;  ///< numbers per frame, and per atom
  bool default_fparam = true;  ///< no network needs fparam to be given
  bool aparam_needed = false;  ///< a network sees aparam, and does not merely have it as a mask
};

/// A model: a descriptor and a fitting network on it; or a combination of such models and of tables, which has neither; or such a
/// table, as a part of a combination. A spin model is a combination of one network, whose types are the model's and as many again.
struct Config {
  std::string json;  ///< the text it was parsed from; empty for parts of a combination
  std::vector<std::string> type_map;
  std::string precision;            ///< "float64" or "float32": what the model runs in by default
  std::optional<std::string> head;  ///< of the multi-task file that the model comes from
  std::string descriptor_type = "dpa2", descriptor_precision = "float64";
  bool smooth = true, concat_output_tebd = true, add_tebd_to_repinit_out = false, use_econf_tebd = false, use_tebd_bias = false;
  double env_protection = 0;
  std::vector<std::pair<int, int>> exclude_types, pair_exclude_types;
  std::vector<int> atom_exclude_types;
  RepinitConfig repinit;
  RepformerConfig repformer;
  FittingConfig fitting;
  std::optional<double> min_nbor_dist;
  bool hessian_mode = false;                                   ///< of energies: the Hessian is an output, too
  std::optional<TableConfig> repinit_table, three_body_table;  ///< of a compressed model
  std::optional<double> max_error;                             ///< of its tables, where it is known

  Combination type = Combination::none;
  std::vector<Config> models;            ///< of a combination; of zbl the network, then the table
  std::vector<double> weights;           ///< of a linear combination, one per model
  double sw_rmin = 0, sw_rmax = 0;       ///< zbl, angstrom: all table below, none of it above
  double smin_alpha = 0.1;               ///< zbl, angstrom: of the weights that average an atom's distances
  std::vector<int> use_spin;             ///< spin: the types that have spins
  std::vector<double> virtual_scale;     ///< spin, (ntypes), angstrom per unit of spin: how far its virtual atom is from an atom
  std::optional<PairTableConfig> table;  ///< of a part that is a pair table
  // What a part of a linear combination has of the whole; its lists are cut from those of parts that reach farther.
  int kept = 0;  ///< the most neighbours in its list, 0: its own nsel. Excluded pairs of types go to pair_exclude_types
  /// Of the network of a spin model: types from here on are those of virtual atoms, which stand beside an atom on purpose. 0: none.
  int first_virtual = 0;

  /// The descriptors that a hybrid one puts beside each other, those of hybrids in it among them: types, and what belongs to descriptors.
  /// Their lists are cut from one, the first `kept` neighbours of it (0: all) in a hybrid that has no more.
  std::vector<Config> descriptors;
  std::string at;  ///< of such a descriptor: what its weights have in their names between those of the whole descriptor and their own

  /// What has the descriptor: the model itself, or the first part of a combination that has one.
  [[nodiscard]] const Config& base() const;
  /// The largest cutoff, angstrom, and the number of neighbours within it.
  [[nodiscard]] double rcut() const;
  [[nodiscard]] int nsel() const;
  [[nodiscard]] Parameters parameters() const;
  /// Rows of the rotation matrix.
  [[nodiscard]] int g2_dim() const;
  [[nodiscard]] int descriptor_dim() const;
  [[nodiscard]] bool hybrid() const { return !base().descriptors.empty(); }

  int ntypes() const { return static_cast<int>(type_map.size()); }
  /// Whether atoms of a type have spins.
  [[nodiscard]] bool has_spin(int of_type) const;
  /// Width of a row of the type embedding's input: one-hot types or electrons.
  int tebd_input() const { return use_econf_tebd ? 118 : ntypes(); }
  int repinit_dim() const {
    return repinit.neuron.back() * repinit.axis_neuron + (repinit.use_three_body ? repinit.three_body_neuron.back() : 0);
  }
};

/// Throws Error with Status::model_file or Status::unsupported and a message that names the key.
Config parse_config(const std::string& json);

}  // namespace dpa2
