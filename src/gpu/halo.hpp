// The exchange of packed rows on the device: kernels pack them, so that nothing but what travels leaves the device.
#pragma once

#include <cstddef>

#include "exchange.hpp"
#include "gpu/device.hpp"
#include "gpu/ghost_rows.hpp"
#include "gpu/loader.hpp"
#include "gpu/program.hpp"
#include "gpu/queue.hpp"
#include "gpu/staging.hpp"

namespace dpa2::gpu {

/// The lists of a Halo on the device.
struct HaloLists {
  const int *send = nullptr, *receive = nullptr, *images = nullptr, *owners = nullptr, *atoms = nullptr, *begin = nullptr,
            *sources = nullptr;
};

/// Brings packed rows of the device through the carrier.
class Transport {
 public:
  /// `packed` is for its use alone.
  Transport(const Halo& halo, Staging& staging, Event& packed, Handle stream)
      : halo_(halo), staging_(staging), packed_(packed), stream_(stream) {}
  /// `sent` (bytes) has been queued; what is queued afterwards finds `received` filled. The host waits until `sent` is there, and not for
  /// what `meanwhile` queues.
  void carry(bool forward, const void* sent, std::size_t sent_bytes, void* received, std::size_t received_bytes, int width, int size,
             const Meanwhile& meanwhile);

 private:
  const Halo& halo_;
  Staging& staging_;
  Event& packed_;
  Handle stream_;
};

template <class T>
struct HaloKernels {
  explicit HaloKernels(Loader& loader);
  Function pack, unpack, collect;
};

template <class T>
class PackedRows final : public GhostRows<T> {
 public:
  /// `transport`: null while the evaluation is planned.
  PackedRows(const HaloKernels<T>& kernels, const HaloExtent& extent, const HaloLists& lists, Transport* transport)
      : kernels_(kernels), extent_(extent), lists_(lists), transport_(transport) {}

  void forward(Queue& queue, T* rows, int width, const Meanwhile& meanwhile) override;
  void reverse(Queue& queue, T* rows, int width, const Meanwhile& meanwhile) override;

 private:
  void carry(bool forward, const T* sent, int sent_rows, T* received, int received_rows, int width, const Meanwhile& meanwhile) const;

  const HaloKernels<T>& kernels_;
  const HaloExtent extent_;
  const HaloLists lists_;
  Transport* const transport_;
};

extern template struct HaloKernels<float>;
extern template struct HaloKernels<double>;
extern template class PackedRows<float>;
extern template class PackedRows<double>;

}  // namespace dpa2::gpu
