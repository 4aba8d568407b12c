// A model on a GPU: what the faces of the library call.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "exchange.hpp"
#include "fold/folded.hpp"
#include "gpu/kernel.hpp"
#include "neighbors/build.hpp"
#include "schema/config.hpp"

namespace dpa2::gpu {

/// Memory of the device, and what keeps it: when the last copy of the owner goes, the memory goes.
struct Memory {
  void* at = nullptr;
  std::shared_ptr<void> owner;
};

/// What compiles kernels and gives memory. Called when a model is loaded and when buffers grow, never in a step, with no lock held; the
/// device's primary context is current. Absent hooks: NVRTC by dlopen, and the driver's own memory.
struct Hooks {
  /// CUfunction of kernel `name` of src/cuda/<source>.
  std::function<void*(const std::string& source, const std::string& name, const Defines& defines)> function;
  /// Throws out_of_memory.
  std::function<Memory(std::size_t bytes)> memory;
  /// Nothing is to run: a model is made that knows its memory and nothing else. No device is looked for, and the others are not called.
  bool plan_only = false;
};

/// What is wanted of an evaluation.
struct Request {
  bool values = true;   ///< what the model computes for atoms and of them for the frame: energies, dipoles, ...
  bool forces = false;  ///< minus the derivatives of the frame's value, of each of its components; only where it has any
  bool atom_virial = false, deepmd_virial = false;  ///< one of them, with forces
  bool descriptor = false, rot_mat = false;
  bool vjp = false;  ///< forces and virial are those of the seeds, of one component; no values
};

/// The atoms that other processes own (theory 13); of the host, of one system that is open in all directions. Without an exchange
/// it is an error if one is a neighbour.
struct Ghosts {
  int count = 0;             ///< rows behind those of the atoms, in coords, types, ids and forces
  const int* ids = nullptr;  ///< (atoms + count) numbers >= 0 that decide between equal distances and that messages name, or null: rows
  int pad_type = 0;          ///< of padded slots, >= 0
  Exchange* exchange = nullptr;
};

/// Systems of one size. Pointers are all of the host, or (coords, types, seeds, fparam, aparam) all of the device.
struct Input {
  int frames = 1, atoms = 0;
  bool on_device = false;
  void* stream = nullptr;          ///< the caller's, of device arrays: inputs are ready on it, and so are the results
  const double* coords = nullptr;  ///< (frames, atoms, 3) angstrom
  const int* types = nullptr;      ///< (frames, atoms)
  const double* boxes = nullptr;   ///< (frames, 3, 3) always of the host, or null
  std::array<bool, 3> pbc{};
  const double* fparam = nullptr;     ///< (frames, numb_fparam) or null
  const double* aparam = nullptr;     ///< (frames, atoms, numb_aparam) or null
  const double* weights = nullptr;    ///< (frames, atoms) or null: ones. Forces are of the sum of the atoms' values with these weights
  const double* seed_head = nullptr;  ///< (frames, atoms, width) or null
  const double* seed_descriptor = nullptr;  ///< (frames, atoms, descriptor_dim) or null
  const double* seed_rot_mat = nullptr;     ///< (frames, atoms, n2, 3) or null
  const Ghosts* ghosts = nullptr;           ///< of a part of a system, arrays of the host; null: atoms is all there is
};

/// Where results go, all of the side where the input is; null: not wanted. Of energies width and components are 1; of a dipole 3; other
/// kinds have no components, and those without a value of the frame leave it alone.
struct Output {
  double* value = nullptr;        ///< (frames, width) the frame's
  double* atom_value = nullptr;   ///< (frames, atoms, width)
  double* force = nullptr;        ///< (frames, atoms, components, 3); with rows of ghosts where there are any, like atom_virial
  double* virial = nullptr;       ///< (frames, components, 9)
  double* atom_virial = nullptr;  ///< (frames, atoms, components, 9)
  double* descriptor = nullptr;   ///< (frames, atoms, descriptor_dim)
  double* rot_mat = nullptr;      ///< (frames, atoms, n2, 3)
};

/// What memory is asked for: one system of the host in a periodic box.
struct Expected {
  std::int64_t atoms = 0;
  double neighbors = 0.0;  ///< on average others within repinit's cutoff of an atom
  bool weighted = false;   ///< Input::weights are given
  Request request;
};

/// Bytes of the device that an evaluation takes, of an engine that has done nothing larger before.
struct MemoryUse {
  struct Piece {
    std::string name;
    std::int64_t bytes = 0;
  };
  std::int64_t constants = 0;    ///< of the model
  std::int64_t in = 0, out = 0;  ///< what is given, and results
  std::int64_t slab = 0;         ///< everything between
  std::vector<Piece> pieces;     ///< of the slab, those that are in use together where these take most; buffers of one name as one
  [[nodiscard]] std::int64_t bytes() const noexcept { return constants + in + out + slab; }
};

/// What evaluations take on a GPU. Nothing of CUDA is needed to know it.
class Planner {
 public:
  virtual ~Planner() = default;
  /// Throws invalid_input where these are more atoms, or neighbours, than one device can number.
  [[nodiscard]] virtual MemoryUse memory(const Expected& expected) const = 0;
  /// What a device has to have; some several times.
  [[nodiscard]] virtual std::vector<NeededKernel> kernels() const = 0;
};

/// One evaluation at a time (a lock of its own); any thread may call. Throws Error.
class Engine : public Planner {
 public:
  /// Host results: complete and correct on return, with remarks of frame f in remarks[f]. Device results: queued; see `check`.
  virtual void evaluate(const Input& input, const Request& request, const Output& out, std::vector<Remarks>* remarks) = 0;
  /// Waits for what has been queued since the last check and throws what was wrong with it. False: a result was void because lists had
  /// grown beyond their buffers (it holds NaN); buffers have been enlarged, and the same call again gives it. `remarks`, where not null:
  /// those of the frames of the last evaluation.
  virtual bool check(std::vector<Remarks>* remarks = nullptr) = 0;
  [[nodiscard]] virtual int device() const = 0;
  /// What there was to say when the model was loaded, once per process; "" where there is nothing.
  [[nodiscard]] virtual std::string warning() const = 0;
  /// Bytes of the device that this engine holds.
  [[nodiscard]] virtual std::int64_t bytes() const = 0;
  /// Kernels launched by a steady step of the last size; 0 before the first.
  [[nodiscard]] virtual int launches() const = 0;
  /// The same model, its kernels and constants, with memory and a lock of its own: evaluations that wait for each other in an
  /// exchange need that.
  [[nodiscard]] virtual std::unique_ptr<Engine> another() const = 0;
};

/// Of anything but a linear combination. `device`: its number among those that CUDA shows. Throws Error where there is no driver or no
/// such device.
std::unique_ptr<Engine> make_engine(const Config& config, const Folded& folded, const std::string& precision, int device, Hooks hooks);

/// Of the same models; no device.
std::unique_ptr<Planner> make_planner(const Config& config, const Folded& folded, const std::string& precision);

}  // namespace dpa2::gpu
