#include "gpu/head.hpp"

#include "cuda/assemble.hpp"

namespace dpa2::gpu {

HeadShape::HeadShape(const Config& config) {
  const FittingConfig& fitting = config.fitting;
  energy = fitting.type == FittingType::ener;
  width = fitting.values();
  components = energy ? 1 : fitting.type == FittingType::dipole ? 3 : 0;
  total = fitting.type != FittingType::population;
  mean = fitting.type == FittingType::property && fitting.intensive;
}

template <class T>
Head<T>::Head(const Config& config, const Folded& folded, Loader& loader)
    : shape_(config),
      fitting_(folded, config, loader),
      n2_(config.repformer.g2_dim),
      rotation_(config.fitting.type == FittingType::dipole || config.fitting.type == FittingType::polar),
      diagonal_(config.fitting.type == FittingType::polar && config.fitting.fit_diag) {
  if (folded.table) zbl_.emplace(*folded.table, *folded.share, loader);
  if (shape_.energy) return;
  const FoldedHead& head = folded.head;
  const bool dipole = config.fitting.type == FittingType::dipole;
  forward_ = loader.function("head.cu", !rotation_ ? "head_values" : dipole ? "dipole" : "polar");
  backward_ = loader.function("head.cu", !rotation_ ? "head_values_backward" : dipole ? "dipole_backward" : "polar_backward");
  if (shape_.total) totals_ = loader.function("assemble.cu", "value_totals");
  scale_ = loader.upload<double>(head.scale);
  bias_ = loader.upload<double>(head.bias);
  shift_ = loader.upload<double>(head.shift);
}

template <class T>
cuda::CoefficientArgs<T> Head<T>::coefficients(const Frame& frame, const T* net) const {
  cuda::CoefficientArgs<T> args{};
  args.net = net;
  args.scale = scale_;
  args.bias = bias_;
  args.counted = fitting_.counted();
  args.given_types = frame.given_types;
  args.types = frame.types;
  args.failed = frame.failed;
  args.centres = frame.centres;
  args.per_frame = frame.centres / frame.frames;
  args.width = fitting_.width();
  args.vacuum = fitting_.vacuum_kind();
  return args;
}

template <class T>
typename Head<T>::Kept Head<T>::forward(Queue& queue, const Frame& frame, double* value, const T* g1, const T* C, const double* fparam,
                                        const double* aparam, bool gradient) const {
  Kept kept;
  if (shape_.energy) {
    double* const energy = value != nullptr ? value : queue.take<double>("atomic energies", frame.centres);
    kept.fitting = fitting_.forward(queue, frame, energy, g1, fparam, aparam, gradient);
    if (zbl_) kept.zbl = zbl_->mix(queue, frame, energy, gradient);
    return kept;
  }
  kept.fitting = fitting_.numbers(queue, frame, kept.net, g1, fparam, aparam, gradient);
  kept.C = C;
  const auto launch = [&](const auto& args) {
    queue.launch(forward_, blocks_of(frame.centres, cuda::head_threads / 32), cuda::head_threads, 0, args);
  };
  if (value == nullptr) return kept;
  if (rotation_)
    launch(cuda::TensorArgs<T>{value, C, shift_, coefficients(frame, kept.net), n2_, diagonal_ ? 1 : 0});
  else
    launch(cuda::HeadValuesArgs<T>{value, coefficients(frame, kept.net)});
  return kept;
}

template <class T>
void Head<T>::backward(Queue& queue, const Frame& frame, T* dg1, T* dC, const HeadSeed& seed, const Kept& kept) const {
  if (shape_.energy) {
    double* const memory = zbl_ && seed.seed != nullptr ? queue.take<double>("weights of a network", frame.centres) : nullptr;
    const double* const of_network = zbl_ ? zbl_->network_seeds(queue, frame, seed.seed, kept.zbl, memory) : seed.seed;
    fitting_.backward(queue, frame, dg1, of_network, kept.fitting);
    queue.release(memory);
    return;
  }
  T* dnet = queue.take<T>("gradient of the fitting network's numbers", std::int64_t{frame.centres} * fitting_.width());
  const auto launch = [&](const auto& args) {
    queue.launch(backward_, blocks_of(frame.centres, cuda::head_threads / 32), cuda::head_threads, 0, args);
  };
  const cuda::SeedArgs seeds{seed.seed, seed.component, 0};
  if (rotation_)
    launch(cuda::TensorBackwardArgs<T>{dnet, dC, kept.C, coefficients(frame, kept.net), seeds, n2_, diagonal_ ? 1 : 0});
  else
    launch(cuda::HeadValuesBackwardArgs<T>{dnet, coefficients(frame, kept.net), seeds});
  fitting_.numbers_backward(queue, frame, dg1, dnet, kept.fitting);
  queue.release(dnet);
}

template <class T>
void Head<T>::release(Queue& queue, const Kept& kept) {
  for (T* const slope : kept.fitting.slopes) queue.release(slope);
  queue.release(kept.net);
}

template <class T>
void Head<T>::edges_backward(Queue& queue, const Frame& frame, T* gamma, const HeadSeed& seed, const Kept& kept) const {
  if (zbl_) zbl_->gradient(queue, frame, seed.seed, kept.zbl, gamma);
}

template <class T>
void Head<T>::totals(Queue& queue, const Frame& frame, double* out, const double* value) const {
  cuda::ValueTotalsArgs args{};
  args.out = out;
  args.values = value;
  args.counted = fitting_.counted();
  args.given_types = frame.given_types;
  args.types = frame.types;
  args.failed = frame.failed;
  args.per_frame = frame.centres / frame.frames;
  args.width = shape_.width;
  args.mean = shape_.mean ? 1 : 0;
  queue.launch(totals_, std::int64_t{frame.frames} * shape_.width, cuda::totals_threads, 0, args);
}

template class Head<float>;
template class Head<double>;

}  // namespace dpa2::gpu
