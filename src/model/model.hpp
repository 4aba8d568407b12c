// A model ready to evaluate: the C++ entry point that every face of the library stands on.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "gpu/engine.hpp"
#include "heads/output.hpp"
#include "model/combined.hpp"
#include "model/linear.hpp"
#include "model/spin.hpp"
#include "neighbors/box.hpp"
#include "neighbors/build.hpp"
#include "neighbors/settings.hpp"
#include "schema/config.hpp"
#include "schema/weights.hpp"

namespace dpa2 {

/// Everything that a model can be asked for: what its head computes, then descriptors.
std::vector<OutputSpec> model_outputs(const Config& config);
/// Whether an output is one of those that `descriptor` fills, not `evaluate`.
inline bool of_descriptor(const OutputSpec& spec) { return spec.name == "descriptor" || spec.name == "rot_mat"; }

/// What a caller brings for one frame; lengths in angstrom.
struct Structure {
  int natoms = 0;
  const double* coords = nullptr;  ///< (natoms, 3), anywhere in space
  const int* types = nullptr;      ///< (natoms), index into the type map; < 0: virtual
  Box box;
  const double* fparam = nullptr;    ///< (numb_fparam) or null: the model's default
  const double* aparam = nullptr;    ///< (natoms, numb_aparam) or null where the model has none
  const double* velocity = nullptr;  ///< (natoms, 3), for products with the Hessian: the direction
  const double* spins = nullptr;     ///< (natoms, 3): of spin models, in the unit of the data that they were trained on
  const double* weights = nullptr;   ///< (natoms): forces and virials are those of the weighted sum of the atoms' energies; null: ones
};

class Model;

/// The evaluator of a model, whatever it is and whatever its precision; not of a linear combination or a spin model, which have them for
/// their parts.
class AnyEvaluator {
 public:
  explicit AnyEvaluator(const Model& model);
  /// f(evaluator)
  template <class F>
  void with(F f) {
    std::visit([&](auto& evaluator) { f(*evaluator); }, evaluator_);
  }

 private:
  template <class E>
  using Own = std::unique_ptr<E>;  // evaluators stay where they are
  std::variant<Own<Evaluator<double>>, Own<Evaluator<float>>, Own<Evaluator<double, HybridDescriptor>>,
               Own<Evaluator<float, HybridDescriptor>>, Own<ZblEvaluator<double>>, Own<ZblEvaluator<float>>, Own<TableEvaluator>>
      evaluator_;
};

/// Immutable; any number of threads may evaluate at once, each evaluation in a workspace of its own that is reused. On a GPU they take
/// turns, and threads and skin mean nothing.
class Model {
 public:
  /// `precision` "float64" or "float32"; empty: the configuration's own. With a `skin` (angstrom) neighbours within the cutoff
  /// + skin are looked for once and reused until an atom has moved by half the skin; results are the same bits.
  /// `values_checked`: somebody has seen to it that the weights are finite; names and shapes are checked here. `device`: "cpu", "cuda" or
  /// "cuda:N"; `hooks` are for a GPU; where nothing is to run, it can be asked for its memory alone. Throws Error.
  Model(Config config, Weights weights, const std::string& precision, double skin = 0.0, bool values_checked = false,
        const std::string& device = "cpu", gpu::Hooks hooks = {});
  ~Model();
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  const Config& config() const noexcept { return config_; }
  const char* kind() const noexcept { return model_kind(config_); }
  const std::vector<OutputSpec>& outputs() const noexcept { return outputs_; }
  const std::string& precision() const noexcept { return precision_; }
  const NeighborSettings& neighbor_settings() const noexcept { return settings_; }
  /// The lists for a table that sees more pairs than the network; none: the same.
  const std::optional<NeighborSettings>& pair_settings() const noexcept { return pair_settings_; }
  double skin() const noexcept { return skin_; }
  /// The widest rows that an evaluation exchanges, in numbers of the model's precision.
  int exchange_width() const noexcept;
  /// "cpu" or "cuda:N".
  const std::string& device() const noexcept { return device_; }
  /// What evaluates a model on a GPU; null on the CPU.
  gpu::Engine* gpu() const noexcept { return gpu_.get(); }
  /// Everything of it that is on a GPU: one engine, or those of the parts of a linear combination.
  std::vector<gpu::Engine*> engines() const;
  /// What there was to say when it was loaded on a GPU, once per process.
  std::vector<std::string> warnings() const;
  /// The parts of a linear combination, which has no lists and no evaluator itself; null: it is none.
  const LinearCombination* linear() const noexcept { return linear_.get(); }
  /// The network of a spin model and what is made of its results; null: it is none.
  const SpinModel* spin() const noexcept { return spin_.get(); }
  /// Angstrom: a pair closer than this is a mistake. Half of the least distance in the training data, where the model knows it.
  double least_distance() const;
  bool knows_least_distance() const { return config_.min_nbor_dist && *config_.min_nbor_dist > 0.0; }
  /// Whether atoms of a type have outputs: they are neither virtual nor excluded.
  bool counts(int type) const noexcept;
  /// Throws invalid_input where a parameter is missing that the model has no default for.
  void check_parameters(bool has_fparam, bool has_aparam) const;

  /// Fills `out` (nall == natoms), those of the head's outputs that it names, and remarks: neighbours beyond sel, the closest pair. `threads` below 1 are 1.
  void evaluate(const Structure& structure, AtomVirial atom_virial, int threads, const Outputs& out, Remarks& remarks) const;
  void descriptor(const Structure& structure, int threads, const Outputs& out, Remarks& remarks) const;
  /// Minus the gradient of the sum of outputs with the weights `seeds`: out's force, and its virial if asked for.
  void vjp(const Structure& structure, const Seeds& seeds, int threads, const Outputs& out, Remarks& remarks) const;

  /// product (natoms, 3) = the Hessian of the energy times the structure's velocities. Energies of networks, on the CPU; else unsupported.
  void hessian_product(const Structure& structure, int threads, double* product, Remarks& remarks) const;

  /// Frames of one size as one batch, and arrays of the device: on a GPU only. Of the device, fparam must be given where the model has it,
  /// and there must be atoms; a linear combination takes arrays of the host. `engine`: another one of this model's, null: that of the model.
  void evaluate_frames(const gpu::Input& input, const gpu::Request& request, const gpu::Output& out, std::vector<Remarks>* remarks,
                       gpu::Engine* engine = nullptr) const;

  /// Bytes that a first evaluation takes, of `natoms` atoms with on average `neighbors` others within repinit's cutoff; on a GPU those of
  /// the device. With `gradient` forces as well.
  std::int64_t memory_estimate(std::int64_t natoms, double neighbors, bool gradient, AtomVirial atom_virial, int threads) const;
  /// The same of a model on a GPU in more detail, that of a linear combination for every part. `weighted`: it is such a part.
  std::vector<gpu::MemoryUse> gpu_memory(std::int64_t natoms, double neighbors, bool gradient, AtomVirial atom_virial,
                                         bool weighted = false) const;
  /// What a model on a GPU has to have compiled, those of every part of a linear combination; some several times.
  std::vector<gpu::NeededKernel> gpu_kernels() const;

 private:
  friend class AnyEvaluator;
  struct Session;
  struct Pool;
  std::unique_ptr<Session> take_session(const Structure& structure) const;
  struct Rows {
    double* data = nullptr;  ///< (natoms, width) or null
    int width = 0;
  };
  using Results = std::array<Rows, 3>;
  template <class F>
  void run(const Structure& structure, const Seeds& seeds, int threads, bool gradient, AtomVirial atom_virial, Remarks& remarks,
           const Results& results, F f) const;
  double neighbors_of(const Model& part, double neighbors) const;
  void frames_of_parts(const gpu::Input& input, const gpu::Request& request, const gpu::Output& out, std::vector<Remarks>& remarks) const;
  void on_gpu(const Structure& structure, const Seeds& seeds, const gpu::Request& request, const Outputs& asked, Remarks& remarks) const;

  Config config_;
  std::string precision_, device_;
  std::vector<OutputSpec> outputs_;
  NeighborSettings settings_;
  std::optional<NeighborSettings> pair_settings_;
  double skin_ = 0.0;
  std::unique_ptr<Prepared<double>> f64_;
  std::unique_ptr<Prepared<float>> f32_;
  std::unique_ptr<PreparedHybrid<double>> hybrid64_;
  std::unique_ptr<PreparedHybrid<float>> hybrid32_;
  std::optional<FoldedPairTable> table_;  ///< on the CPU, of zbl and of tables
  std::optional<FoldedShare> share_;
  std::unique_ptr<gpu::Engine> gpu_;
  std::unique_ptr<gpu::Planner> planner_;  ///< in its place where nothing is to run
  std::unique_ptr<LinearCombination> linear_;
  std::unique_ptr<SpinModel> spin_;
  std::unique_ptr<Pool> pool_;
};

}  // namespace dpa2
