#include "gpu/product.hpp"

#include <string>

#include "gpu/activation.hpp"

namespace dpa2::gpu {

std::vector<double> packed(const Matrix& m) {
  const int columns = cuda::product_columns, depth = cuda::product_padded(m.rows);
  std::vector<double> all(static_cast<std::size_t>(cuda::product_packed(m.rows, m.cols)));
  for (int k = 0; k < m.rows; ++k)
    for (int c = 0; c < m.cols; ++c) {
      const int at = (c / columns * depth + k) * columns + c % columns;
      all[static_cast<std::size_t>(at)] = m(k, c);
    }
  return all;
}

TiledKernel::TiledKernel(Loader& loader, const char* source, const char* name, const Defines& defines, int bytes_of_scalar)
    : each_(cuda::product_each(bytes_of_scalar)), enough_blocks_(2 * std::int64_t{loader.multiprocessors()}) {
  const auto with_rows = [&](int each) {
    Defines all = defines;
    if (loader.tensor_cores()) all.emplace_back("TENSOR", "1");
    all.emplace_back("ROWS", std::to_string(each));
    return loader.function(source, name, all);
  };
  large_ = with_rows(each_);
  small_ = with_rows(cuda::product_each_small);
}

template <class T>
Product<T>::Product(const FoldedActivation& act, Loader& loader)
    : kernel_(loader, "product.cu", "product", activation_defines(act), sizeof(T)) {}

template <class T>
void Product<T>::forward(Queue& queue, int rows, T* out, const T* a, const Weights2<T>& w) const {
  cuda::ProductArgs<T> args{};
  args.out = out;
  args.a = a;
  args.b = w.w;
  args.rows = rows;
  args.n = w.out;
  args.k = w.in;
  run(queue, args);
}

template <class T>
void Product<T>::backward(Queue& queue, int rows, T* da, const T* dout, const Weights2<T>& w, bool accumulate) const {
  cuda::ProductArgs<T> args{};
  args.out = da;
  args.a = dout;
  args.b = w.wt;
  args.rows = rows;
  args.n = w.in;
  args.k = w.out;
  args.accumulate = accumulate ? 1 : 0;
  run(queue, args);
}

template <class T>
EntryNodes<T>::EntryNodes(const FoldedDescriptor& folded, const Config& config, Loader& loader)
    : product_(folded.act, loader),
      shape_(upload_both<T>(folded.entry.shape, loader)),
      type_term_(loader.upload<T>(folded.entry.type_term)),
      n1_(config.repformer.g1_dim),
      width_(config.repinit_dim()) {}

template <class T>
void EntryNodes<T>::forward(Queue& queue, const Frame& frame, T* g1, T* slope, const T* D) const {
  cuda::ProductArgs<T> args{};
  args.out = g1;
  args.slope = slope;
  args.a = D;
  args.b = shape_.w;
  args.type_term = type_term_;
  args.types = frame.types;
  args.rows = frame.centres;
  args.n = n1_;
  args.k = width_;
  args.active = 1;
  product_.run(queue, args);
}

template <class T>
void EntryNodes<T>::backward(Queue& queue, const Frame& frame, T* dD, const T* dg1, const T* slope) const {
  cuda::ProductArgs<T> args{};
  args.out = dD;
  args.a = dg1;
  args.factor = slope;
  args.b = shape_.wt;
  args.rows = frame.centres;
  args.n = width_;
  args.k = n1_;
  product_.run(queue, args);
}

template class Product<float>;
template class Product<double>;
template class EntryNodes<float>;
template class EntryNodes<double>;

}  // namespace dpa2::gpu
