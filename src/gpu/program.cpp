#include "gpu/program.hpp"

namespace dpa2::gpu {

ProgramKey key_of(const Input& input, const Request& request) {
  const auto bits = [](std::initializer_list<bool> flags) {
    int value = 0, bit = 1;
    for (const bool flag : flags) {
      value += flag ? bit : 0;
      bit *= 2;
    }
    return value;
  };
  ProgramKey key;
  key.frames = input.frames;
  key.atoms = input.atoms;
  if (input.ghosts != nullptr) key.ghosts = input.ghosts->count;
  key.request =
      bits({request.values, request.forces, request.atom_virial, request.deepmd_virial, request.descriptor, request.rot_mat, request.vjp});
  key.given =
      bits({input.fparam != nullptr, input.aparam != nullptr, input.weights != nullptr, input.seed_head != nullptr,
            input.seed_descriptor != nullptr, input.seed_rot_mat != nullptr, input.ghosts != nullptr && input.ghosts->ids != nullptr});
  if (const Halo* halo = halo_of(input); halo != nullptr) {
    const auto size = [](const std::vector<int>& list) { return static_cast<int>(list.size()); };
    key.halo = {size(halo->send), size(halo->receive), size(halo->images), size(halo->atoms)};
  }
  key.pbc = bits({input.pbc[0], input.pbc[1], input.pbc[2]});
  return key;
}

Graph::Graph(std::shared_ptr<const Device> device, Handle capturing, std::uint64_t generation)
    : device_(std::move(device)), generation_(generation) {
  Handle graph = nullptr;
  check(driver().capture_end(capturing, &graph), "ending the capture of a step");
  const int status = driver().graph_instantiate(&executable_, graph, 0);
  static_cast<void>(driver().graph_free(graph));
  check(status, "instantiating the graph of a step");
}

Graph::~Graph() {
  const Device::Use use(*device_, std::nothrow);
  if (use) static_cast<void>(driver().graph_executable_free(executable_));
}

}  // namespace dpa2::gpu
