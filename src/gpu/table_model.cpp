#include "gpu/table_model.hpp"

#include "error.hpp"

namespace dpa2::gpu {

template <class T>
void TableModel<T>::enqueue(Queue& queue, const Frame& frame, const Request& request, const Parameters& given, const Output& out,
                            GhostRows<T>*) const {
  if (request.descriptor || request.rot_mat || given.seed_descriptor != nullptr || given.seed_rot_mat != nullptr)
    throw internal_error("a pair table has no descriptor");
  Results results;
  if (request.values) {
    results.energy = out.value;
    results.atom_energy = out.atom_value;
    table_.energies(queue, frame, out.atom_value);
  }
  if (request.forces || request.vjp)
    this->derivatives(queue, frame, request, given, out, results, [&](const HeadSeed& seed, T*& gamma, bool) {
      if (gamma == nullptr) gamma = this->take_edges(queue, frame);
      table_.gradient(queue, frame, seed.seed, gamma);
    });
  else if (request.values)
    this->assemble_.run(queue, frame, nullptr, results);
}

template class TableModel<float>;
template class TableModel<double>;

}  // namespace dpa2::gpu
