#include "gpu/fitting.hpp"

#include "gpu/activation.hpp"
#include "gpu/counted.hpp"

namespace dpa2::gpu {

template <class T>
Fitting<T>::Fitting(const Folded& folded, const Config& config, Loader& loader)
    : hidden_(loader, "fitting.cu", "fitting_hidden", activation_defines(folded.fitting.act), sizeof(T)),
      backward_(loader, "fitting.cu", "fitting_hidden_backward", activation_defines(folded.fitting.act), sizeof(T)),
      n1_(config.repformer.g1_dim),
      last_(n1_),
      width_(folded.fitting.out.w.cols),
      vacuum_(folded.head.vacuum) {
  const FoldedFitting& fitting = folded.fitting;
  cuda::FittingExtra<T>& c = constants_;
  if (config.concat_output_tebd) {
    c.tebd = loader.upload<T>(folded.descriptor.tebd);
    c.ntebd = folded.descriptor.tebd.cols;
  }
  c.nfparam = fitting.fparam_avg.cols;
  c.fparam_avg = loader.upload<double>(fitting.fparam_avg);
  c.fparam_inv_std = loader.upload<double>(fitting.fparam_inv_std);
  c.naparam = fitting.aparam_avg.cols;
  c.aparam_avg = loader.upload<double>(fitting.aparam_avg);
  c.aparam_inv_std = loader.upload<double>(fitting.aparam_inv_std);
  c.case_embd = loader.upload<T>(fitting.case_embd);
  c.width = c.ntebd + c.nfparam + c.naparam + fitting.case_embd.cols;
  if (config.fitting.default_fparam) default_fparam_ = loader.upload<double>(*config.fitting.default_fparam);
  for (const FoldedHidden& hidden : fitting.layers) {
    const bool first = layers_.empty();
    Layer layer;
    layer.in = first ? n1_ : hidden.in;
    layer.out = last_ = hidden.out;
    layer.skip = hidden.skip;
    const Weights2<T> both = upload_both<T>(rows(hidden.w, 0, 1, layer.in), loader);
    layer.w = both.w;
    layer.wt = both.wt;
    if (first && c.width > 0) layer.extra_w = loader.upload<T>(packed(rows(hidden.w, n1_, 1, c.width)));
    layer.b = loader.upload<T>(hidden.b);
    layer.idt = loader.upload<T>(hidden.idt);
    layers_.push_back(layer);
  }
  counted_ = upload_counted(folded.head.counted, loader);
  if (config.fitting.type == FittingType::ener) {
    bias_ = loader.upload<double>(folded.head.bias);
    energy_ = loader.function("fitting.cu", "fitting_energy", activation_defines(fitting.act));
    w_out_ = loader.upload<T>(fitting.out.w);
    b_out_ = static_cast<T>(fitting.out.b(0, 0));
    return;
  }
  // The last layer is one without activation.
  last_layer_.emplace(loader, "fitting.cu", "fitting_hidden", activation_defines({}), sizeof(T));
  last_backward_.emplace(folded.descriptor.act, loader);
  out_ = upload_both<T>(rows(fitting.out.w, 0, 1, last_), loader);
  out_b_ = loader.upload<T>(fitting.out.b);
  if (layers_.empty() && c.width > 0) out_extra_w_ = loader.upload<T>(packed(rows(fitting.out.w, n1_, 1, c.width)));
}

template <class T>
int Fitting<T>::vacuum_rows(const Frame& frame) const {
  if (!vacuum_ || frame.centres == 0) return 0;
  return constants_.naparam > 0 ? frame.centres : frame.frames;
}

template <class T>
cuda::FittingExtra<T> Fitting<T>::extra(const Frame& frame, const double* fparam, const double* aparam) const {
  cuda::FittingExtra<T> e = constants_;
  e.types = frame.types;
  e.fparam = fparam != nullptr ? fparam : default_fparam_;
  e.fparam_row = fparam != nullptr ? e.nfparam : 0;
  e.aparam = aparam;
  e.centres = frame.centres;
  e.per_frame = frame.centres / frame.frames;
  return e;
}

template <class T>
typename Fitting<T>::Input Fitting<T>::hidden(Queue& queue, const Frame& frame, Kept& kept, const T* g1, const double* fparam,
                                              const double* aparam, bool gradient) const {
  const int all = frame.centres + vacuum_rows(frame);
  Input input{g1, nullptr, frame.centres, extra(frame, fparam, aparam)};
  for (const Layer& layer : layers_) {
    const std::int64_t size = static_cast<std::int64_t>(all) * layer.out;
    cuda::FittingHiddenArgs<T> args{};
    args.y = queue.take<T>("fitting layer", size);
    if (gradient) {
      args.slope = queue.take<T>("slopes of a fitting layer", size);
      kept.slopes.push_back(args.slope);
    }
    args.x = input.y;
    args.w = layer.w;
    args.extra_w = layer.extra_w;
    args.b = layer.b;
    args.idt = layer.idt;
    args.extra = input.beside;
    args.rows = all;
    args.given = input.given;
    args.in = layer.in;
    args.out = layer.out;
    args.skip = layer.skip;
    hidden_.launch(queue, all, cuda::product_tiles(layer.out), args);
    queue.release(input.taken);
    input.y = input.taken = args.y;
    input.given = all;
    input.beside.width = 0;
  }
  return input;
}

template <class T>
typename Fitting<T>::Kept Fitting<T>::forward(Queue& queue, const Frame& frame, double* energy, const T* g1, const double* fparam,
                                              const double* aparam, bool gradient) const {
  Kept kept;
  const Input input = hidden(queue, frame, kept, g1, fparam, aparam, gradient);
  cuda::FittingEnergyArgs<T> args{};
  args.energy = energy;
  args.y = input.y;
  args.w_out = w_out_;
  args.bias = bias_;
  args.counted = counted_;
  args.given_types = frame.given_types;
  args.failed = frame.failed;
  args.extra = input.beside;
  args.given = input.given;
  args.in = last_;
  args.vacuum = vacuum_ ? 1 : 0;
  args.b_out = b_out_;
  queue.launch(*energy_, blocks_of(frame.centres, cuda::fitting_energy_threads / 32), cuda::fitting_energy_threads, 0, args);
  queue.release(input.taken);
  return kept;
}

template <class T>
typename Fitting<T>::Kept Fitting<T>::numbers(Queue& queue, const Frame& frame, T*& net, const T* g1, const double* fparam,
                                              const double* aparam, bool gradient) const {
  Kept kept;
  const Input input = hidden(queue, frame, kept, g1, fparam, aparam, gradient);
  const int all = frame.centres + vacuum_rows(frame);
  net = queue.take<T>("numbers of the fitting network", static_cast<std::int64_t>(all) * width_);
  cuda::FittingHiddenArgs<T> args{};
  args.y = net;
  args.x = input.y;
  args.w = out_.w;
  args.extra_w = out_extra_w_;
  args.b = out_b_;
  args.extra = input.beside;
  args.rows = all;
  args.given = input.given;
  args.in = last_;
  args.out = width_;
  last_layer_->launch(queue, all, cuda::product_tiles(width_), args);
  queue.release(input.taken);
  return kept;
}

template <class T>
void Fitting<T>::backward(Queue& queue, const Frame& frame, T* dg1, const double* seed, const Kept& kept) const {
  cuda::FittingBackwardArgs<T> args{};
  args.w_out = w_out_;
  args.seed = seed;
  args.given_types = frame.given_types;
  args.types = frame.types;
  args.counted = counted_;
  if (!layers_.empty()) return hidden_backward(queue, frame, dg1, args, nullptr, kept);
  args.rows = frame.centres;
  args.dx = dg1;
  args.wanted = args.in = args.out = n1_;
  args.skip = 1;
  backward_.launch(queue, frame.centres, cuda::product_tiles(n1_), args);
}

template <class T>
void Fitting<T>::numbers_backward(Queue& queue, const Frame& frame, T* dg1, const T* dnet, const Kept& kept) const {
  if (layers_.empty()) return last_backward_->backward(queue, frame.centres, dg1, dnet, out_, false);
  T* dy = queue.take<T>("gradient of a fitting layer", static_cast<std::int64_t>(frame.centres) * last_);
  last_backward_->backward(queue, frame.centres, dy, dnet, out_, false);
  hidden_backward(queue, frame, dg1, {}, dy, kept);
}

template <class T>
void Fitting<T>::hidden_backward(Queue& queue, const Frame& frame, T* dg1, cuda::FittingBackwardArgs<T> args, T* dy,
                                 const Kept& kept) const {
  args.rows = frame.centres;
  for (std::size_t l = layers_.size(); l-- > 0;) {
    const Layer& layer = layers_[l];
    T* dx = l > 0 ? queue.take<T>("gradient of a fitting layer", static_cast<std::int64_t>(frame.centres) * layer.in) : dg1;
    args.dx = dx;
    args.dy = dy;
    args.slope = kept.slopes[l];
    args.wt = layer.wt;
    args.wanted = layer.in;
    args.in = l > 0 ? layer.in : layer.in + constants_.width;
    args.out = layer.out;
    args.skip = layer.skip;
    backward_.launch(queue, frame.centres, cuda::product_tiles(layer.in), args);
    queue.release(dy);
    dy = dx;
  }
}

template class Fitting<float>;
template class Fitting<double>;

}  // namespace dpa2::gpu
