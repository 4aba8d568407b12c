#include "gpu/assemble.hpp"

#include "cuda/assemble.hpp"

namespace dpa2::gpu {

namespace {

cuda::EndsArgs ends_of(const Frame& frame) {
  return {frame.d, frame.master.start, frame.incoming.begin, frame.incoming.edges, frame.failed, frame.centres, frame.atoms};
}

}  // namespace

template <class T>
Assemble<T>::Assemble(Loader& loader)
    : assemble_(loader.function("assemble.cu", "assemble")),
      deepmd_(loader.function("assemble.cu", "assemble_deepmd")),
      in_box_(loader.function("assemble.cu", "in_box")),
      coordinate_(loader.function("assemble.cu", "coordinate")),
      totals_(loader.function("assemble.cu", "totals")) {}

template <class T>
void Assemble<T>::run(Queue& queue, const Frame& frame, const T* gamma, const Results& results) const {
  double* virials = nullptr;
  if (gamma != nullptr) {
    if (results.virial != nullptr) virials = queue.take<double>("virials of centres", std::int64_t{9} * frame.centres);
    const cuda::AssembleArgs<T> args{results.force, virials, results.atom_virial, gamma, ends_of(frame), results.components, 0};
    queue.launch(assemble_, blocks_of(frame.atoms, cuda::assemble_atoms), cuda::assemble_threads, 0, args);
  }
  const cuda::TotalsArgs args{results.energy,      virials != nullptr ? results.virial : nullptr,
                              results.atom_energy, virials,
                              frame.failed,        frame.centres / frame.frames,
                              results.components};
  if (args.virial != nullptr || args.atom_energy != nullptr)
    queue.launch(totals_, std::int64_t{cuda::totals_columns} * frame.frames, cuda::totals_threads, 0, args);
  queue.release(virials);
}

template <class T>
void Assemble<T>::in_box(Queue& queue, const Frame& frame, const double* coords, const cuda::GivenBox* boxes, double* wrapped) const {
  const cuda::InBoxArgs args{wrapped, coords, boxes, frame.centres, frame.centres / frame.frames};
  queue.launch(in_box_, blocks_of(frame.centres, cuda::assemble_threads), cuda::assemble_threads, 0, args);
}

template <class T>
void Assemble<T>::coordinate(Queue& queue, const Frame& frame, int axis, const double* wrapped, const double* weights, double* seed) const {
  const cuda::CoordinateArgs args{seed, wrapped, weights, frame.centres, axis};
  queue.launch(coordinate_, blocks_of(frame.centres, cuda::assemble_threads), cuda::assemble_threads, 0, args);
}

template <class T>
void Assemble<T>::deepmd(Queue& queue, const Frame& frame, int axis, const double* wrapped, const T* seeded, const T* plain,
                         const Results& results) const {
  const cuda::AssembleDeepmdArgs<T> args{results.atom_virial, seeded,         plain, wrapped,
                                         frame.master.centre, ends_of(frame), axis,  results.components};
  queue.launch(deepmd_, blocks_of(frame.atoms, cuda::assemble_atoms), cuda::assemble_threads, 0, args);
}

template class Assemble<float>;
template class Assemble<double>;

}  // namespace dpa2::gpu
