#include "train/trainer.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <optional>

#include "error.hpp"
#include "fold/folded.hpp"
#include "heads/spectrum.hpp"
#include "model/combined.hpp"
#include "neighbors/settings.hpp"
#include "threads.hpp"

namespace dpa2::train {

/// One precision.
class Engine {
 public:
  virtual ~Engine() = default;
  /// What it throws leaves the engine without a model.
  virtual void assign(Folded folded) = 0;
  [[nodiscard]] virtual bool ready() const = 0;
  virtual std::vector<int> counted(const Batch& batch) = 0;
  virtual void look(const Batch& batch, Loss& loss) = 0;
  virtual Folded gradient(const Batch& batch, Loss& loss) = 0;
  virtual void add(const Batch& batch, Loss& loss) = 0;
  virtual std::size_t bytes() = 0;
};

namespace {

/// The head's values of all atoms, and then, with seeds, the gradient of their sum with these weights.
template <class T>
class HeadReadout : public Readout<T> {
 public:
  HeadReadout(const Head<T>& head, const Frame& frame, double* values) : head_(head), frame_(frame), values_(values) {}
  void seed(const double* seeds, const ThreadGradients<T>& gradients) {
    seeds_ = seeds;
    gradients_ = &gradients;
  }
  [[nodiscard]] bool rotation() const override { return head_.rotation(); }
  void tile(int i0, int i1, const Rows<const T>& rows, const Rows<T>*, Arena& arena) override {
    head_.forward(frame_, i0, i1, rows, values_ + static_cast<std::ptrdiff_t>(i0) * head_.width(), arena);
  }
  void tile_of_thread(int t, int i0, int i1, const Rows<const T>& rows, const Rows<T>* gradient, Arena& arena) override {
    const std::ptrdiff_t at = static_cast<std::ptrdiff_t>(i0) * head_.width();
    head_.backward(frame_, i0, i1, rows, seeds_ + at, values_ + at, *gradient, &(*gradients_)[static_cast<std::size_t>(t)]->head, arena);
  }

 private:
  const Head<T>& head_;
  const Frame& frame_;
  double* values_;
  const double* seeds_ = nullptr;
  const ThreadGradients<T>* gradients_ = nullptr;
};

template <class R>
class EngineOf final : public Engine {
 public:
  /// A network, or a zbl model: its network with a table mixed in.
  EngineOf(const Config& config, Folded folded, int threads)
      : config_(config.base()),
        settings_(neighbor_settings(config)),
        pair_settings_(pair_settings(config)),
        threads_(threads),
        table_(std::move(folded.table)),
        share_(std::move(folded.share)),
        model_(std::in_place, config_, std::move(folded), threads),
        evaluator_(config_, *model_),
        head_(make_head(config_, *model_)),
        dual_head_(*model_),
        plain_(*model_),
        dual_(*model_) {
    edges_.keep_image = pairs_.keep_image = false;
    if (share_) mixed_ = std::make_unique<ZblEvaluator<R>>(config_, *model_, *table_, *share_);
    make_gradients();
  }

  /// In the place of the old one, to which everything points.
  void assign(Folded folded) override {
    model_.emplace(config_, std::move(folded), threads_);
    if (gradients_.size() != static_cast<std::size_t>(threads_) || !gradients_.front()->fits()) make_gradients();
  }
  [[nodiscard]] bool ready() const override { return model_.has_value() && gradients_.size() == static_cast<std::size_t>(threads_); }

  void look(const Batch& batch, Loss& loss) override {
    const std::vector<LabelSpec> specs = loss.labels();
    count(batch);
    for (int f = 0; f < batch.nframes; ++f) {
      const Frame frame = enter(batch, f);
      predict(frame, loss);
      loss.look(look_at(batch, f, specs, loss));
    }
  }

  Folded gradient(const Batch& batch, Loss& loss) override {
    for (const auto& g : gradients_) g->clear();
    const std::vector<LabelSpec> specs = loss.labels();
    count(batch);
    for (int f = 0; f < batch.nframes; ++f) {
      Frame frame = enter(batch, f);
      predict(frame, loss);
      seeds_.resize(values_.size());
      force_seeds_.assign(3 * static_cast<std::size_t>(batch.natoms), 0.0);
      std::fill_n(virial_seed_, 9, 0.0);
      loss.add(look_at(batch, f, specs, loss), {seeds_.data(), force_seeds_.data(), virial_seed_});
      sweep(frame, loss);
    }
    for (std::size_t t = 1; t < gradients_.size(); ++t) gradients_[0]->add(*gradients_[t]);
    gradients_[0]->finish_padding();
    return gradients_[0]->folded(threads_);
  }

  void add(const Batch& batch, Loss& loss) override {
    const std::vector<LabelSpec> specs = loss.labels();
    count(batch);
    for (int f = 0; f < batch.nframes; ++f) {
      const Frame frame = enter(batch, f);
      predict(frame, loss);
      loss.add(look_at(batch, f, specs, loss), {});
    }
  }

  std::vector<int> counted(const Batch& batch) override {
    count(batch);
    const std::ptrdiff_t n = batch.natoms;
    std::vector<int> out;
    for (int f = 0; f < batch.nframes; ++f)
      out.push_back(static_cast<int>(std::count(counted_.get() + f * n, counted_.get() + (f + 1) * n, true)));
    return out;
  }

  std::size_t bytes() override {
    std::size_t sum = (mixed_ ? mixed_->bytes() : 0) + evaluator_.bytes() + plain_.workspace().held() + dual_.workspace().held();
    for (const auto& g : gradients_) sum += g->bytes();
    return sum;
  }

 private:
  /// Which atoms count, into counted_.
  void count(const Batch& batch) {
    const std::size_t n = static_cast<std::size_t>(batch.natoms) * static_cast<std::size_t>(batch.nframes);
    counted_ = std::make_unique<bool[]>(n);
    for (std::size_t i = 0; i < n; ++i) counted_[i] = counts(batch.types[i]);
  }

  [[nodiscard]] bool counts(int type) const { return share_ ? type >= 0 && share_->counted(0, type) != 0 : model_->head.counts(type); }

  /// The lists of a frame, in edges_ and, of a table that sees more pairs, in pairs_.
  Frame enter(const Batch& batch, int f) {
    const std::size_t n = static_cast<std::size_t>(batch.natoms), at = static_cast<std::size_t>(f);
    const Box box = batch.boxes != nullptr ? Box(batch.boxes + 9 * at, {true, true, true}) : Box(nullptr, {false, false, false});
    const int* types = batch.types + at * n;
    builder_.build(batch.coords + 3 * at * n, types, batch.natoms, box, settings_, threads_, edges_);
    Frame frame;
    frame.edges = &edges_;
    if (pair_settings_) {
      pair_builder_.build(batch.coords + 3 * at * n, types, batch.natoms, box, *pair_settings_, threads_, pairs_);
      frame.pairs = &pairs_;
    }
    frame.types = types;
    if (batch.fparam != nullptr) frame.fparam = batch.fparam + at * static_cast<std::size_t>(model_->nfparam);
    if (batch.aparam != nullptr) frame.aparam = batch.aparam + at * n * static_cast<std::size_t>(model_->naparam);
    frame.pad_type = batch.natoms > 0 ? types[0] : 0;
    return frame;
  }

  void make_gradients() {
    gradients_.clear();
    for (int t = 0; t < threads_; ++t) gradients_.push_back(std::make_unique<Gradients<R>>(config_, *model_));
  }

  static bool derivatives(const Loss& loss) { return loss.forces() || loss.virial(); }

  /// values_, and force_ and virial_ where the loss looks at them. Without them what the sweep needs of the forward is there too.
  void predict(const Frame& frame, const Loss& loss) {
    const std::size_t n = static_cast<std::size_t>(frame.edges->nlocal);
    values_.resize(n * static_cast<std::size_t>(head_->width()));
    if (derivatives(loss) || mixed_) {
      force_.resize(3 * n);
      Outputs out;
      out.set("atom_energy", values_.data());
      if (derivatives(loss)) {
        out.set("force", force_.data());
        out.set("virial", virial_);
      }
      if (mixed_)
        mixed_->evaluate(frame, threads_, nullptr, AtomVirial::none, out);
      else
        evaluator_.evaluate(frame, threads_, nullptr, AtomVirial::none, out);
      return;
    }
    HeadReadout<R> readout(*head_, frame, values_.data());
    plain_.begin(frame, threads_, task());
    plain_.forward(nullptr);
    plain_.read(readout);
  }

  [[nodiscard]] LossFrame look_at(const Batch& batch, int f, const std::vector<LabelSpec>& specs, const Loss& loss) const {
    const std::size_t n = static_cast<std::size_t>(batch.natoms), at = static_cast<std::size_t>(f);
    LossFrame frame;
    frame.index = batch.first + f;
    frame.natoms = batch.natoms;
    frame.counted = counted_.get() + at * n;
    frame.atoms = values_.data();
    if (loss.forces()) frame.force = force_.data();
    if (loss.virial()) frame.virial = virial_;
    for (const LabelSpec& spec : specs) {
      const std::size_t k = static_cast<std::size_t>(spec.label);
      const std::size_t size = static_cast<std::size_t>(spec.width) * (spec.per_atom ? n : 1);
      if (batch.labels[k] != nullptr) frame.labels[k] = batch.labels[k] + at * size;
    }
    return frame;
  }

  [[nodiscard]] Task task() const {
    Task task;
    task.gradient = task.weights = true;
    task.values = head_->width();
    return task;
  }

  /// Adds what a frame gives to the gradients, for the seeds that the loss has written.
  void sweep(Frame& frame, const Loss& loss) {
    const std::size_t n = static_cast<std::size_t>(frame.edges->nlocal);
    if (!derivatives(loss)) {
      if (mixed_) {
        network_seeds_.resize(n);
        tangents_.resize(n);
        mixed_->training_seeds(frame, seeds_.data(), network_seeds_.data(), tangents_.data());
        seeds_.assign(tangents_.begin(), tangents_.end());
        plain_.begin(frame, threads_, task());
        plain_.forward(nullptr);
      }
      HeadReadout<R> readout(*head_, frame, values_.data());
      readout.seed(seeds_.data(), gradients_);
      plain_.gradient(readout, gradients_);
      return;
    }
    // The loss falls along minus its derivatives by forces and virial: these are minus those of the energy.
    for (double& v : force_seeds_) v = -v;
    for (double& v : virial_seed_) v = -v;
    frame.velocity = force_seeds_.data();
    frame.strain = virial_seed_;
    if (mixed_) {
      network_seeds_.resize(n);
      tangents_.resize(n);
      mixed_->training_seeds(frame, seeds_.data(), network_seeds_.data(), tangents_.data());
      frame.weights = network_seeds_.data();
      seeds_.assign(tangents_.begin(), tangents_.end());
    }
    HeadReadout<Dual<R>> readout(dual_head_, frame, values_.data());
    readout.seed(seeds_.data(), gradients_);
    dual_.begin(frame, threads_, task());
    dual_.forward(nullptr);
    dual_.gradient(readout, gradients_);
  }

  const Config& config_;  ///< of the network
  NeighborSettings settings_;
  std::optional<NeighborSettings> pair_settings_;
  int threads_;
  std::optional<FoldedPairTable> table_;  ///< of zbl
  std::optional<FoldedShare> share_;
  std::optional<Prepared<R>> model_;
  Evaluator<R> evaluator_;
  std::unique_ptr<ZblEvaluator<R>> mixed_;  ///< of zbl
  std::unique_ptr<Head<R>> head_;
  SpectrumHead<Dual<R>> dual_head_;
  Descriptor<R> plain_;
  Descriptor<Dual<R>> dual_;
  NeighborBuilder builder_, pair_builder_;
  Edges edges_, pairs_;
  ThreadGradients<R> gradients_;
  std::unique_ptr<bool[]> counted_;
  std::vector<double> values_, force_, seeds_, force_seeds_, network_seeds_, tangents_;
  double virial_[9] = {}, virial_seed_[9] = {};
};

void check_finite(const Loss& loss) {
  if (!std::isfinite(loss.value()))
    throw invalid_input("the loss of the batch is not finite, but ", loss.value(), ": its labels, prefactors or parameters are too large");
}

}  // namespace

Trainer::Trainer(Config config, Weights weights, const std::string& precision, int threads)
    : config_(std::move(config)), weights_(std::move(weights)) {
  const std::string& numbers = precision.empty() ? config_.precision : precision;
  if (numbers != "float64" && numbers != "float32") throw invalid_input("precision must be 'float64' or 'float32', not '", numbers, "'");
  if (config_.type == Combination::linear || config_.table)
    throw unsupported("gradients of a linear combination of models are not there: train its parts by themselves");
  if (config_.type == Combination::spin) throw unsupported("spin models are not trained here");
  if (config_.base().repinit_table || config_.base().three_body_table)
    throw unsupported("the model is compressed, its networks are tables: train the model that it was made from");
  check_weights(config_, weights_);
  threads = checked_threads(threads);
  Folded folded = fold(config_, weights_);
  if (numbers == "float64")
    engine_ = std::make_unique<EngineOf<double>>(config_, std::move(folded), threads);
  else
    engine_ = std::make_unique<EngineOf<float>>(config_, std::move(folded), threads);
}

Trainer::~Trainer() = default;

void Trainer::assign(Weights values) {
  for (const auto& [name, tensor] : values) {
    const auto own = weights_.find(name);
    if (own == weights_.end()) throw invalid_input("the model has no weight '", name, "'");
    if (own->second.shape != tensor.shape) throw invalid_input("'", name, "' has another shape in the model");
    if (!std::all_of(tensor.data.begin(), tensor.data.end(), [](double x) { return std::isfinite(x); }))
      throw invalid_input("'", name, "' has numbers that are not finite");
  }
  const auto exchange = [&] {
    for (auto& [name, tensor] : values) weights_.find(name)->second.data.swap(tensor.data);
  };
  exchange();
  try {
    engine_->assign(fold(config_, weights_));
  } catch (...) {
    exchange();
    throw;
  }
}

std::array<bool, label_count> Batch::found() const {
  std::array<bool, label_count> out{};
  std::transform(labels.begin(), labels.end(), out.begin(), [](const double* label) { return label != nullptr; });
  return out;
}

Engine& Trainer::engine() {
  if (!engine_->ready()) engine_->assign(fold(config_, weights_));
  return *engine_;
}

LossGradient Trainer::gradient(const Batch& batch, Loss& loss, double learning_rate) {
  loss.begin({learning_rate, counted(batch), batch.found()});
  look(batch, loss);
  LossGradient out;
  out.gradient = sweep(batch, loss);
  out.value = loss.value();
  out.parts = loss.parts();
  return out;
}

std::vector<int> Trainer::counted(const Batch& batch) {
  if (batch.nframes < 1 || batch.natoms < 1) throw invalid_input("a batch needs frames with atoms");
  const Parameters parameters = config_.parameters();
  if (parameters.fparam > 0 && batch.fparam == nullptr && !parameters.default_fparam)
    throw invalid_input("the model needs fparam, ", parameters.fparam, " numbers per frame");
  if (parameters.aparam_needed && batch.aparam == nullptr)
    throw invalid_input("the model needs aparam, ", parameters.aparam, " numbers per atom");
  return engine().counted(batch);
}

void Trainer::look(const Batch& batch, Loss& loss) {
  if (loss.survey()) engine().look(batch, loss);
}

LossValue Trainer::value(const Batch& batch, Loss& loss, double learning_rate) {
  loss.begin({learning_rate, counted(batch), batch.found()});
  look(batch, loss);
  add(batch, loss);
  return {loss.value(), loss.parts()};
}

void Trainer::add(const Batch& batch, Loss& loss) {
  engine().add(batch, loss);
  check_finite(loss);
}

Weights Trainer::sweep(const Batch& batch, Loss& loss) {
  Weights out = unfold(config_, weights_, engine().gradient(batch, loss));
  check_finite(loss);
  const double value = loss.value();
  const auto finite = [](double x) { return std::isfinite(x); };
  for (const auto& [name, tensor] : out)
    if (!std::all_of(tensor.data.begin(), tensor.data.end(), finite))
      throw invalid_input("the gradient to '", name, "' is not finite, the loss is ", value,
                          ": labels, prefactors or parameters are too large");
  return out;
}

std::size_t Trainer::bytes() { return engine_->bytes(); }

}  // namespace dpa2::train
