/// dpa2 for C++17: the C interface with owners, vectors and exceptions. Header only; units and shapes as in dpa2.h.
#ifndef DPA2_HPP
#define DPA2_HPP

#include <array>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "dpa2.h"

namespace dpa2 {

/// What a function of the C interface reports as a status.
class Error : public std::runtime_error {
 public:
  Error(dpa2_status status, const std::string& message) : std::runtime_error(message), status_(status) {}
  [[nodiscard]] dpa2_status status() const noexcept { return status_; }

 private:
  dpa2_status status_;
};

/// Throws Error unless the call went well.
inline void check(dpa2_status status) {
  if (status != DPA2_OK) throw Error(status, dpa2_last_error());
}

/// Periodic cell: vectors as rows, angstrom.
struct Cell {
  std::array<double, 9> rows{};
  std::array<int, 3> pbc{1, 1, 1};
};

/// One structure. `aparam` and `fparam` stay empty where the model has none (or, for fparam, a default).
struct Structure {
  std::vector<double> coords;  ///< (natoms, 3) angstrom
  std::vector<int> types;      ///< (natoms)
  std::optional<Cell> cell;    ///< none: open boundaries
  std::vector<double> fparam, aparam;
  std::vector<double> spins;  ///< (natoms, 3), of models of the kind "spin"; empty for others

  [[nodiscard]] int natoms() const {
    if (coords.size() != 3 * types.size()) throw std::invalid_argument("coords must have three numbers per entry of types");
    return static_cast<int>(types.size());
  }
};

/// Of a model of the kind "energy".
struct Result {
  double energy = 0;                 ///< eV
  std::vector<double> forces;        ///< (natoms, 3) eV/angstrom
  std::array<double, 9> virial{};    ///< (3, 3) eV
  std::vector<double> atom_energy;   ///< (natoms) eV
  std::vector<double> atom_virial;   ///< (natoms, 3, 3) eV, empty unless asked for
  std::string warning;               ///< empty, or what dpa2_last_warning said
};

/// What a model computes: dpa2_output of dpa2.h.
struct Output {
  std::string name, unit;
  std::vector<int> shape;      ///< of the value of an atom or of the frame
  bool per_atom = false, ghosts = false;
  std::string reduction, of;
};

/// Arrays by the names of outputs: results, or the weights of a sum of them.
using Arrays = std::map<std::string, std::vector<double>>;

/// The derivatives of a weighted sum of outputs.
struct Gradient {
  std::vector<double> coords;        ///< (natoms, 3)
  std::array<double, 9> strain{};    ///< (3, 3)
  std::string warning;
};

/// A model; copies share it. Any number of threads may use it at once; on a GPU they take turns.
class Model {
 public:
  /// A file in the native format; precision "" is the file's own; device "cpu", "cuda" or "cuda:N". Throws Error.
  explicit Model(const std::string& path, const std::string& precision = "", double skin = 0.0, const std::string& device = "cpu") {
    dpa2_model* model = nullptr;
    check(dpa2_model_load_device(path.c_str(), precision.empty() ? nullptr : precision.c_str(), skin, device.c_str(), &model));
    handle_.reset(model, dpa2_model_free);
  }
  /// The bytes of such a file.
  static Model from_bytes(const void* data, std::size_t size, const std::string& name = "model", const std::string& precision = "",
                          double skin = 0.0, const std::string& device = "cpu") {
    Model m;
    dpa2_model* model = nullptr;
    check(dpa2_model_load_buffer_device(data, size, name.c_str(), precision.empty() ? nullptr : precision.c_str(), skin, device.c_str(), &model));
    m.handle_.reset(model, dpa2_model_free);
    return m;
  }

  [[nodiscard]] const dpa2_model* handle() const noexcept { return handle_.get(); }
  [[nodiscard]] std::vector<std::string> type_map() const {
    std::vector<std::string> names;
    for (int t = 0; t < dpa2_model_ntypes(handle()); ++t) names.emplace_back(dpa2_model_type_name(handle(), t));
    return names;
  }
  /// -1 for a symbol that the model does not know.
  [[nodiscard]] int type_index(const std::string& symbol) const { return dpa2_model_type_index(handle(), symbol.c_str()); }
  [[nodiscard]] double rcut() const { return dpa2_model_rcut(handle()); }
  /// See dpa2_model_virtual_scale.
  [[nodiscard]] double virtual_scale(int type) const { return dpa2_model_virtual_scale(handle(), type); }
  [[nodiscard]] int descriptor_dim() const { return dpa2_model_descriptor_dim(handle()); }
  [[nodiscard]] int fparam_dim() const { return dpa2_model_fparam_dim(handle()); }
  [[nodiscard]] int aparam_dim() const { return dpa2_model_aparam_dim(handle()); }
  [[nodiscard]] int exchange_width() const { return dpa2_model_exchange_width(handle()); }
  [[nodiscard]] std::string precision() const { return dpa2_model_precision(handle()); }
  [[nodiscard]] std::string device() const { return dpa2_model_device(handle()); }
  [[nodiscard]] std::string config() const { return dpa2_model_config(handle()); }
  [[nodiscard]] std::string kind() const { return dpa2_model_kind(handle()); }
  [[nodiscard]] std::vector<Output> outputs() const {
    std::vector<Output> list;
    for (int k = 0; k < dpa2_model_noutputs(handle()); ++k) {
      const dpa2_output& o = *dpa2_model_output(handle(), k);
      list.push_back({o.name, o.unit, {o.shape, o.shape + o.ndim}, o.per_atom != 0, o.ghosts != 0, o.reduction, o.of});
    }
    return list;
  }
  [[nodiscard]] std::int64_t memory_estimate(std::int64_t natoms, double neighbors, bool atomic = false, int threads = 1) const {
    return dpa2_model_memory_estimate(handle(), natoms, neighbors, atomic ? 1 : 0, threads);
  }

  /// Energy, forces and virial, of models of the kind "energy"; the outputs of all kinds are compute(). Throws Error.
  [[nodiscard]] Result evaluate(const Structure& s, int threads = 1, bool atomic = false) const {
    const std::size_t n = checked_natoms(s);
    Result r;
    r.forces.resize(3 * n + 1);  // never a null pointer
    r.atom_energy.resize(n);
    if (atomic) r.atom_virial.resize(9 * n);
    check(dpa2_evaluate(handle(), static_cast<int>(n), s.coords.data(), s.types.data(), s.cell ? s.cell->rows.data() : nullptr,
                        s.cell ? s.cell->pbc.data() : nullptr, pointer(s.fparam), pointer(s.aparam), threads, &r.energy, r.forces.data(), r.virial.data(),
                        r.atom_energy.data(), atomic ? r.atom_virial.data() : nullptr));
    r.forces.resize(3 * n);
    r.warning = dpa2_last_warning();
    return r;
  }

  /// (natoms, descriptor_dim). Throws Error.
  [[nodiscard]] std::vector<double> descriptor(const Structure& s, int threads = 1) const {
    std::vector<double> out(static_cast<std::size_t>(s.natoms()) * static_cast<std::size_t>(descriptor_dim()));
    check(dpa2_descriptor(handle(), s.natoms(), s.coords.data(), s.types.data(), s.cell ? s.cell->rows.data() : nullptr,
                          s.cell ? s.cell->pbc.data() : nullptr, threads, out.data(), nullptr));
    return out;
  }

  /// Outputs by name, every name once; see dpa2_compute and dpa2_compute_spin. Throws Error.
  [[nodiscard]] Arrays compute(const Structure& s, const std::vector<std::string>& names, int threads = 1) const {
    const std::size_t n = checked_natoms(s);
    Arrays results;
    std::vector<const char*> asked;
    std::vector<double*> places;
    for (const std::string& name : names) {
      std::vector<double>& result = results[name];
      for (int k = 0; k < dpa2_model_noutputs(handle()); ++k) {
        const dpa2_output& o = *dpa2_model_output(handle(), k);
        if (name == o.name) result.resize((o.per_atom != 0 ? n : 1) * static_cast<std::size_t>(o.size));
      }
      asked.push_back(name.c_str());
      places.push_back(result.data());
    }
    check(dpa2_compute_spin(handle(), static_cast<int>(n), s.coords.data(), s.types.data(), s.cell ? s.cell->rows.data() : nullptr,
                            s.cell ? s.cell->pbc.data() : nullptr, pointer(s.fparam), pointer(s.aparam), pointer(s.spins), threads,
                            static_cast<int>(names.size()), asked.data(), places.data()));
    return results;
  }

  /// The gradient of the sum of outputs with these weights; see dpa2_vjp. Throws Error.
  [[nodiscard]] Gradient vjp(const Structure& s, const Arrays& weights, int threads = 1) const {
    const std::size_t n = checked_natoms(s);
    std::vector<const char*> names;
    std::vector<const double*> arrays;
    for (const auto& [name, values] : weights) {
      for (int k = 0; k < dpa2_model_noutputs(handle()); ++k) {
        const dpa2_output& o = *dpa2_model_output(handle(), k);
        if (name == o.name) require(values, (o.per_atom != 0 ? n : 1) * static_cast<std::size_t>(o.size), "the weights of " + name, false);
      }
      names.push_back(name.c_str());
      arrays.push_back(values.data());
    }
    Gradient g;
    g.coords.resize(3 * n);
    check(dpa2_vjp(handle(), static_cast<int>(n), s.coords.data(), s.types.data(), s.cell ? s.cell->rows.data() : nullptr,
                   s.cell ? s.cell->pbc.data() : nullptr, pointer(s.fparam), pointer(s.aparam), threads, static_cast<int>(names.size()),
                   names.data(), arrays.data(), g.coords.data(), g.strain.data()));
    g.warning = dpa2_last_warning();
    return g;
  }

 private:
  Model() = default;
  static const double* pointer(const std::vector<double>& parameters) { return parameters.empty() ? nullptr : parameters.data(); }
  std::size_t checked_natoms(const Structure& s) const {
    const std::size_t n = static_cast<std::size_t>(s.natoms());
    require(s.fparam, static_cast<std::size_t>(dpa2_model_fparam_dim(handle())), "fparam");
    require(s.spins, 3 * n, "spins");
    require(s.aparam, n * static_cast<std::size_t>(dpa2_model_aparam_dim(handle())), "aparam");
    return n;
  }
  static void require(const std::vector<double>& parameters, std::size_t size, const std::string& name, bool optional = true) {
    if (!(optional && parameters.empty()) && parameters.size() != size)
      throw Error(DPA2_INVALID_INPUT, name + " must have " + std::to_string(size) + " numbers, not " + std::to_string(parameters.size()));
  }
  std::shared_ptr<dpa2_model> handle_;
};

/// The part of a system that one process has: see dpa2_domain in dpa2.h, whose functions take handle().
class Domain {
 public:
  Domain() {
    dpa2_domain* domain = nullptr;
    check(dpa2_domain_create(&domain));
    handle_.reset(domain);
  }
  [[nodiscard]] dpa2_domain* handle() const noexcept { return handle_.get(); }

 private:
  struct Free {
    void operator()(dpa2_domain* domain) const noexcept { dpa2_domain_free(domain); }
  };
  std::unique_ptr<dpa2_domain, Free> handle_;
};

/// Two functions as a dpa2_exchange, of (rows, width, size); an exception in one of them is thrown again by check().
class Exchange {
 public:
  using Function = std::function<void(void* rows, int width, int size)>;
  Exchange(Function forward, Function reverse) : forward_(std::move(forward)), reverse_(std::move(reverse)) {
    table_ = {this, [](void* self, void* rows, int width, int size) { return static_cast<Exchange*>(self)->call(true, rows, width, size); },
              [](void* self, void* rows, int width, int size) { return static_cast<Exchange*>(self)->call(false, rows, width, size); }};
  }
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;

  [[nodiscard]] const dpa2_exchange* handle() const noexcept { return &table_; }
  /// As dpa2::check, but what a callback threw goes first.
  void check(dpa2_status status) {
    if (thrown_) std::rethrow_exception(std::exchange(thrown_, nullptr));
    dpa2::check(status);
  }

 private:
  int call(bool forward, void* rows, int width, int size) noexcept {
    try {
      (forward ? forward_ : reverse_)(rows, width, size);
      return 0;
    } catch (...) {
      thrown_ = std::current_exception();
      return 1;
    }
  }
  Function forward_, reverse_;
  dpa2_exchange table_{};
  std::exception_ptr thrown_;
};

}  // namespace dpa2

#endif  // DPA2_HPP
