#include "model/device.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "error.hpp"
#include "gpu/device.hpp"
#include "model/model.hpp"

namespace dpa2 {

int device_number(const std::string& name) {
  if (name == "cpu") return -1;
  if (name == "cuda") return 0;
  const std::string prefix = "cuda:";
  const std::string digits = name.compare(0, prefix.size(), prefix) == 0 ? name.substr(prefix.size()) : "";
  const bool number =
      !digits.empty() && digits.size() <= 4 && std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '9'; });
  if (!number || (digits.size() > 1 && digits[0] == '0'))
    throw invalid_input("device must be 'cpu', 'cuda' or 'cuda:N' with the number of a GPU, not '", name,
                        "'; CUDA_VISIBLE_DEVICES says which GPUs there are");
  return std::stoi(digits);
}

int gpu_count() { return gpu::device_count(); }

std::string device_name(int number) { return number < 0 ? "cpu" : text("cuda:", number); }

gpu::Output gpu_output(const gpu::Request& request, const std::vector<OutputSpec>& outputs, const Outputs& asked) {
  gpu::Output out;
  if (request.forces) {
    out.force = asked.array("force");
    out.virial = asked.array("virial");
  }
  if (request.values) {
    for (const OutputSpec& spec : outputs)
      if (spec.reduction != Reduction::none) out.value = asked.array(spec.name);
    out.atom_value = asked.array(atom_output(outputs).name);
  }
  if (request.atom_virial || request.deepmd_virial) out.atom_virial = asked.array("atom_virial");
  if (request.descriptor) out.descriptor = asked.array("descriptor");
  if (request.rot_mat) out.rot_mat = asked.array("rot_mat");
  return out;
}

void Model::evaluate_frames(const gpu::Input& given, const gpu::Request& request, const gpu::Output& out, std::vector<Remarks>* remarks,
                            gpu::Engine* engine) const {
  if (!gpu_ && engines().empty()) throw unsupported("several frames at once are evaluated on a GPU only; the model is on the CPU");
  if (given.frames < 0 || given.atoms < 0) throw invalid_input("there are ", given.frames, " frames of ", given.atoms, " atoms");
  if (remarks != nullptr) remarks->assign(static_cast<std::size_t>(given.frames), {});
  const std::size_t frames = static_cast<std::size_t>(given.frames), atoms = frames * static_cast<std::size_t>(given.atoms);
  if (linear_) {
    if (given.on_device)
      throw unsupported(
          "a linear combination of models takes coordinates in the memory of the host: the results of its parts are added there");
    std::vector<Remarks> found(frames);
    frames_of_parts(given, request, out, found);
    if (remarks != nullptr) *remarks = std::move(found);
    return;
  }
  gpu::Input input = given;
  std::vector<double> fparam;
  const FittingConfig& fitting = config_.base().fitting;
  const bool of_head = request.vjp ? input.seed_head != nullptr : request.values || request.forces;
  if (of_head) {
    check_parameters(input.fparam != nullptr, input.aparam != nullptr || atoms == 0);
    if (fitting.numb_fparam == 0) input.fparam = nullptr;  // of other parts of a combination
    if (fitting.numb_aparam == 0) input.aparam = nullptr;
    if (input.fparam == nullptr && fitting.numb_fparam > 0) {
      if (input.on_device) throw internal_error("the default of fparam is of the host, but the structure is of the device");
      const std::vector<double>& row = *fitting.default_fparam;
      for (std::size_t f = 0; f < frames; ++f) fparam.insert(fparam.end(), row.begin(), row.end());
      input.fparam = fparam.data();
    }
  } else {
    input.fparam = input.aparam = nullptr;
  }
  if (engine == nullptr) engine = gpu_.get();
  if (atoms == 0 && input.ghosts == nullptr) {
    if (input.on_device) throw internal_error("the results of no atoms are the caller's to make");
    const auto fill = [&](double* to, int each, double value) {
      if (to != nullptr) std::fill_n(to, frames * static_cast<std::size_t>(each), value);
    };
    for (const OutputSpec& spec : outputs_)  // the mean of nothing is not a number
      if (spec.reduction != Reduction::none) fill(out.value, spec.size(), spec.reduction == Reduction::mean ? std::nan("") : 0.0);
    fill(out.virial, 9 * (request.vjp ? 1 : quantities_with_forces(outputs_)), 0.0);
    return;
  }
  // Of arrays of the device the kernels say what is wrong with an atom; here the messages are the CPU's.
  for (std::size_t f = 0; f < frames && !input.on_device && input.ghosts == nullptr; ++f) {
    const std::size_t first = f * static_cast<std::size_t>(input.atoms);
    check_atoms(input.coords + 3 * first, input.types + first, input.atoms, settings_.ntypes, nullptr);
  }
  engine->evaluate(input, request, out, remarks);
}

std::vector<gpu::Engine*> Model::engines() const {
  std::vector<gpu::Engine*> found;
  if (gpu_) found.push_back(gpu_.get());
  if (linear_)
    for (const LinearCombination::Part& part : linear_->parts())
      for (gpu::Engine* const engine : part.model->engines()) found.push_back(engine);
  return found;
}

std::vector<std::string> Model::warnings() const {
  std::vector<std::string> all;
  for (const gpu::Engine* const engine : engines())
    if (std::string one = engine->warning(); !one.empty()) all.push_back(std::move(one));
  return all;
}

/// Of a linear combination, whose parts take the frames one by one.
void Model::frames_of_parts(const gpu::Input& input, const gpu::Request& request, const gpu::Output& out,
                            std::vector<Remarks>& remarks) const {
  const Parameters parameters = config_.parameters();
  const std::size_t n = static_cast<std::size_t>(input.atoms);
  for (std::size_t f = 0; f < remarks.size(); ++f) {
    const auto frame = [&](auto* rows, std::size_t width) { return rows != nullptr ? rows + f * width : nullptr; };
    Structure s;
    s.natoms = input.atoms;
    s.coords = frame(input.coords, 3 * n);
    s.types = frame(input.types, n);
    s.box = Box(frame(input.boxes, 9), input.pbc);
    s.fparam = frame(input.fparam, static_cast<std::size_t>(parameters.fparam));
    s.aparam = frame(input.aparam, static_cast<std::size_t>(parameters.aparam) * n);
    Outputs asked;
    asked.set("force", frame(out.force, 3 * n));
    asked.set("virial", frame(out.virial, 9));
    asked.set("atom_virial", frame(out.atom_virial, 9 * n));
    asked.set("energy", frame(out.value, 1));
    asked.set("atom_energy", frame(out.atom_value, n));
    asked.set("descriptor", frame(out.descriptor, static_cast<std::size_t>(config_.descriptor_dim()) * n));
    asked.set("rot_mat", frame(out.rot_mat, 3 * static_cast<std::size_t>(config_.g2_dim()) * n));
    const AtomVirial atomic = request.deepmd_virial ? AtomVirial::deepmd : request.atom_virial ? AtomVirial::edge : AtomVirial::none;
    if (request.vjp) {
      Seeds seeds;
      seeds.head = frame(input.seed_head, n);
      seeds.descriptor = frame(input.seed_descriptor, static_cast<std::size_t>(config_.descriptor_dim()) * n);
      seeds.rot_mat = frame(input.seed_rot_mat, 3 * static_cast<std::size_t>(config_.g2_dim()) * n);
      vjp(s, seeds, 1, asked, remarks[f]);
    }
    if (request.descriptor || request.rot_mat) descriptor(s, 1, asked, remarks[f]);
    if (request.values || (request.forces && !request.vjp)) evaluate(s, atomic, 1, asked, remarks[f]);
  }
}

void Model::on_gpu(const Structure& structure, const Seeds& seeds, const gpu::Request& request, const Outputs& asked,
                   Remarks& remarks) const {
  gpu::Input input;
  input.atoms = structure.natoms;
  input.coords = structure.coords;
  input.types = structure.types;
  std::array<double, 9> box{};
  if (!structure.box.open()) {
    for (std::size_t k = 0; k < 9; ++k) box[k] = structure.box.rows()[k / 3][k % 3];
    input.boxes = box.data();
    input.pbc = structure.box.periodic();
  }
  input.fparam = structure.fparam;
  input.aparam = structure.aparam;
  input.weights = structure.weights;
  input.seed_head = seeds.head;
  input.seed_descriptor = seeds.descriptor;
  input.seed_rot_mat = seeds.rot_mat;
  std::vector<Remarks> found;
  evaluate_frames(input, request, gpu_output(request, outputs_, asked), &found);
  remarks = found.at(0);
}

}  // namespace dpa2
