#include "gpu/halo.hpp"

#include <algorithm>
#include <cstdint>

#include "cuda/halo.hpp"

namespace dpa2::gpu {

// Memory of `received` is nobody else's from the taking of both buffers on: what used it before has come before the packed rows.
void Transport::carry(bool forward, const void* sent, std::size_t sent_bytes, void* received, std::size_t received_bytes, int width,
                      int size, const Meanwhile& meanwhile) {
  const auto call = [&](const void* from, void* to) {
    if (forward)
      halo_.carrier->forward(from, to, width, size);
    else
      halo_.carrier->reverse(from, to, width, size);
  };
  if (halo_.on_device) {
    packed_.record(stream_);
    meanwhile();
    packed_.wait();
    return call(sent, received);
  }
  // Two pieces, for the carrier reads one while it fills the other.
  Staging::Slot& out = staging_.next(std::max(sent_bytes, sizeof(double)));
  Staging::Slot& in = staging_.next(std::max(received_bytes, sizeof(double)));
  if (sent_bytes > 0) {
    check(driver().copy_out(out.memory->at<void>(), address(sent), sent_bytes, stream_), "copying rows for other processes");
    out.copied->record(stream_);
  }
  meanwhile();
  if (sent_bytes > 0) out.copied->wait();
  call(out.memory->at<void>(), in.memory->at<void>());
  if (received_bytes == 0) return;
  check(driver().copy_in(address(received), in.memory->at<void>(), received_bytes, stream_), "copying rows of other processes");
  in.copied->record(stream_);
}

template <class T>
HaloKernels<T>::HaloKernels(Loader& loader)
    : pack(loader.function("halo.cu", "pack_rows")),
      unpack(loader.function("halo.cu", "unpack_rows")),
      collect(loader.function("halo.cu", "collect_rows")) {}

namespace {

template <class Args>
void launch(Queue& queue, const Function& kernel, const Args& args) {
  queue.launch(kernel, blocks_of(args.count, cuda::halo_threads / 32), cuda::halo_threads, 0, args);
}

}  // namespace

template <class T>
void PackedRows<T>::carry(bool forward, const T* sent, int sent_rows, T* received, int received_rows, int width,
                          const Meanwhile& meanwhile) const {
  if (transport_ == nullptr || (sent_rows == 0 && received_rows == 0)) return meanwhile();
  const auto bytes = [&](int rows) { return static_cast<std::size_t>(rows) * static_cast<std::size_t>(width) * sizeof(T); };
  transport_->carry(forward, sent, bytes(sent_rows), received, bytes(received_rows), width, sizeof(T), meanwhile);
}

template <class T>
void PackedRows<T>::forward(Queue& queue, T* rows, int width, const Meanwhile& meanwhile) {
  T* sent = queue.take<T>("rows for other processes", std::int64_t{extent_.sent} * width);
  T* received = queue.take<T>("rows of other processes", std::int64_t{extent_.received} * width);
  launch(queue, kernels_.pack, cuda::PackArgs<T>{sent, rows, lists_.send, extent_.sent, width});
  carry(true, sent, extent_.sent, received, extent_.received, width, meanwhile);
  launch(queue, kernels_.unpack,
         cuda::UnpackArgs<T>{rows, received, lists_.receive, lists_.images, lists_.owners, extent_.received,
                             extent_.received + extent_.images, width, 0});
  queue.release(sent, received);
}

template <class T>
void PackedRows<T>::reverse(Queue& queue, T* rows, int width, const Meanwhile& meanwhile) {
  T* sent = queue.take<T>("rows for other processes", std::int64_t{extent_.received} * width);
  T* received = queue.take<T>("rows of other processes", std::int64_t{extent_.sent} * width);
  launch(queue, kernels_.pack, cuda::PackArgs<T>{sent, rows, lists_.receive, extent_.received, width});
  carry(false, sent, extent_.received, received, extent_.sent, width, meanwhile);
  launch(queue, kernels_.collect, cuda::CollectArgs<T>{rows, received, lists_.atoms, lists_.begin, lists_.sources, extent_.atoms, width});
  queue.release(sent, received);
}

template struct HaloKernels<float>;
template struct HaloKernels<double>;
template class PackedRows<float>;
template class PackedRows<double>;

}  // namespace dpa2::gpu
