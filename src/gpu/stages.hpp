// What an evaluation does once the neighbour lists are made: kernels of a network, or of a pair table alone.
#pragma once

#include "cuda/assemble.hpp"
#include "gpu/assemble.hpp"
#include "gpu/engine.hpp"
#include "gpu/frame.hpp"
#include "gpu/ghost_rows.hpp"
#include "gpu/head.hpp"
#include "gpu/queue.hpp"

namespace dpa2::gpu {

/// What an evaluation reads besides the frame; of the device, null where absent.
struct Parameters {
  const double* coords = nullptr;           ///< (atoms, 3) as given
  const cuda::GivenBox* boxes = nullptr;    ///< (frames) where deepmd-kit's virials are asked for
  const double* fparam = nullptr;           ///< (frames, numb_fparam)
  const double* aparam = nullptr;           ///< (centres, numb_aparam)
  const double* weights = nullptr;          ///< (centres) of the atoms' values in what forces and virials are derivatives of
  const double* seed_head = nullptr;        ///< (centres, width)
  const double* seed_descriptor = nullptr;  ///< (centres, descriptor_dim)
  const double* seed_rot_mat = nullptr;     ///< (centres, n2, 3)
};

template <class T>
class Stages {
 public:
  explicit Stages(Loader& loader) : assemble_(loader) {}
  virtual ~Stages() = default;
  /// Everything that `request` asks for into `out`, arrays of the device; `ghosts` where there are ghost rows, else null.
  virtual void enqueue(Queue& queue, const Frame& frame, const Request& request, const Parameters& given, const Output& out,
                       GhostRows<T>* ghosts) const = 0;
  [[nodiscard]] virtual const HeadShape& shape() const = 0;

 protected:
  /// Forces and virials of each component. backward(seed, gamma, last): gamma (master edges, 3) = that of the sum with the weights `seed`,
  /// of take_edges where it is null; `last`: no other pass follows. `results` says where energies go, if there are any.
  template <class F>
  void derivatives(Queue& queue, const Frame& frame, const Request& request, const Parameters& given, const Output& out, Results results,
                   const F& backward) const {
    const int components = request.vjp ? 1 : shape().components;
    int left = passes(request);
    double *seed = nullptr, *wrapped = nullptr;
    T *gamma = nullptr, *seeded = nullptr;
    results.components = components;
    for (int component = 0; component < components; ++component) {
      backward(request.vjp ? HeadSeed{given.seed_head, -1} : HeadSeed{given.weights, component}, gamma, --left == 0);
      results.force = out.force + 3 * component;
      results.virial = out.virial + 9 * component;
      double* const atom_virial = out.atom_virial != nullptr ? out.atom_virial + 9 * component : nullptr;
      results.atom_virial = request.deepmd_virial ? nullptr : atom_virial;
      assemble_.run(queue, frame, gamma, results);
      if (!request.deepmd_virial) continue;
      if (component == 0) {
        seed = queue.take<double>("positions as seeds", frame.centres);
        wrapped = queue.take<double>("positions in the boxes", std::int64_t{frame.centres} * 3);
        assemble_.in_box(queue, frame, given.coords, given.boxes, wrapped);
      }
      results.atom_virial = atom_virial;
      for (int axis = 0; axis < 3; ++axis) {
        assemble_.coordinate(queue, frame, axis, wrapped, given.weights, seed);
        backward(HeadSeed{seed, component}, seeded, --left == 0);
        assemble_.deepmd(queue, frame, axis, wrapped, seeded, gamma, results);
      }
    }
  }

  /// How often derivatives() calls backward.
  [[nodiscard]] int passes(const Request& request) const {
    return (request.vjp ? 1 : shape().components) * (request.deepmd_virial ? 4 : 1);
  }

  static T* take_edges(Queue& queue, const Frame& frame) {
    return queue.take<T>("gradients of edges", std::int64_t{frame.master.capacity} * 3);
  }

  Assemble<T> assemble_;
};

}  // namespace dpa2::gpu
