#include "gpu/outputs.hpp"

#include "cuda/outputs.hpp"

namespace dpa2::gpu {

template <class T>
Outputs<T>::Outputs(const FoldedDescriptor& folded, const Config& config, Loader& loader)
    : descriptor_(loader.function("outputs.cu", "descriptor_rows")),
      rotation_(loader.function("outputs.cu", "rotation_rows")),
      descriptor_seeds_(loader.function("outputs.cu", "descriptor_seeds")),
      rotation_seeds_(loader.function("outputs.cu", "rotation_seeds")),
      n1_(config.repformer.g1_dim),
      n2_(config.repformer.g2_dim) {
  if (!config.concat_output_tebd) return;
  tebd_ = loader.upload<T>(folded.tebd);
  ntebd_ = folded.tebd.cols;
}

template <class T>
template <class Args>
void Outputs<T>::launch(Queue& queue, const Function& kernel, const Args& args) const {
  queue.launch(kernel, blocks_of(args.rows, cuda::outputs_threads / 32), cuda::outputs_threads, 0, args);
}

template <class T>
void Outputs<T>::descriptor(Queue& queue, const Frame& frame, double* out, const T* g1) const {
  launch(queue, descriptor_, cuda::DescriptorRowsArgs<T>{out, g1, tebd_, frame.types, frame.failed, frame.centres, n1_, ntebd_});
}

template <class T>
void Outputs<T>::rotation(Queue& queue, const Frame& frame, double* out, const T* C) const {
  launch(queue, rotation_, cuda::RotationArgs<T>{out, C, frame.failed, frame.centres, n2_});
}

template <class T>
void Outputs<T>::descriptor_seeds(Queue& queue, const Frame& frame, T* dg1, const double* seed, bool accumulate) const {
  launch(queue, descriptor_seeds_, cuda::DescriptorSeedsArgs<T>{dg1, seed, frame.centres, n1_, n1_ + ntebd_, accumulate ? 1 : 0});
}

template <class T>
void Outputs<T>::rotation_seeds(Queue& queue, const Frame& frame, T* dC, const double* seed, bool accumulate) const {
  launch(queue, rotation_seeds_, cuda::RotationSeedsArgs<T>{dC, seed, frame.centres, n2_, accumulate ? 1 : 0, 0});
}

template class Outputs<float>;
template class Outputs<double>;

}  // namespace dpa2::gpu
