#include "model.h"

#include <mpi.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>
#include <optional>

#include "device.h"

#include <lammps/atom.h>
#include <lammps/comm.h>
#include <lammps/error.h>

using namespace LAMMPS_NS;

namespace dpa2_lammps {

namespace {

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

std::string listed(const std::vector<std::string>& words) {
  std::string list;
  for (const std::string& word : words) list += " " + word;
  return list;
}

/// Reads files for all processes.
class Reader : public Part {
 public:
  using Part::Part;

  dpa2::Model model(const std::string& path, const std::string& precision, const std::string& where, const std::string& if_missing,
                    const Device& devices) const {
    require_native(path);
    const std::string bytes = read_and_share(path, if_missing), device = devices.of_process(where);
    std::optional<dpa2::Model> loaded;
    devices.together("model " + path, [&] { loaded = dpa2::Model::from_bytes(bytes.data(), bytes.size(), path, precision, 0.0, device); });
    const std::string warning = dpa2_last_warning();
    if (!warning.empty() && comm->me == 0) error->warning(FLERR, "{}, model {}: {}", style, path, warning);
    if (device != "cpu") devices.report(path, device);
    return *loaded;
  }

 private:
  void require_native(const std::string& path) const {
    if (ends_with(path, ".safetensors")) return;
    for (const char* suffix : {".pt", ".pth", ".dp", ".yaml", ".yml", ".pt2", ".pte", ".hlo", ".pb", ".savedmodel"})
      if (ends_with(path, suffix))
        error->all(FLERR, "{}: '{}' is not in the native format. Convert it once: dpa2 convert {} {}.safetensors{}", style, path, path,
                   path.substr(0, path.size() - std::strlen(suffix)), note);
    error->all(FLERR, "{}: '{}' is no model file (.safetensors) and no keyword{}", style, path, note);
  }

  std::string read_and_share(const std::string& path, const std::string& if_missing) const {
    std::string bytes;
    bigint size = -1;
    if (comm->me == 0) {
      std::ifstream file(path, std::ios::binary);
      if (file) bytes.assign(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
      if (file && !file.bad() && !bytes.empty()) size = static_cast<bigint>(bytes.size());
    }
    MPI_Bcast(&size, 1, MPI_LMP_BIGINT, 0, world);
    if (size < 0) error->all(FLERR, "{}: cannot read the model file '{}'{}", style, path, if_missing);
    bytes.resize(static_cast<std::size_t>(size));
    constexpr bigint chunk = 1 << 30;
    for (bigint done = 0; done < size; done += chunk)
      MPI_Bcast(&bytes[static_cast<std::size_t>(done)], static_cast<int>(std::min(chunk, size - done)), MPI_BYTE, 0, world);
    return bytes;
  }
};

}  // namespace

Model::Model(LAMMPS* lammps, const Names& names, const std::string& file, const std::string& precision, const std::string& device,
             const std::string& if_missing)
    : Part(lammps, names), path(file), network(Reader(lammps, names).model(file, precision, device, if_missing, Device(lammps, names))) {}

void Model::map_types(const std::vector<std::string>& elements) {
  const int nnames = static_cast<int>(elements.size());
  if (nnames > 0 && nnames != atom->ntypes)
    error->all(FLERR, "{}: {} names {} elements for {} atom types:{}", style, elements_place, nnames, atom->ntypes, listed(elements));
  const std::vector<std::string> symbols = network.type_map();
  const std::string known = listed(symbols);
  if (nnames == 0 && atom->ntypes > static_cast<int>(symbols.size()))
    error->all(FLERR, "{}: there are {} atom types, but the model {} knows only{}: name an element or NULL for each in {}", style,
               atom->ntypes, path, known, elements_place);
  type_of.assign(1, -1);
  for (int t = 0; t < atom->ntypes; t++) {
    int type = t;
    if (nnames > 0) {
      const std::string& element = elements[static_cast<std::size_t>(t)];
      type = network.type_index(element);
      if (type < 0 && element != "NULL")
        error->all(FLERR, "{}: the model {} does not know the element {} of {}; it knows{}", style, path, element, elements_place, known);
    }
    type_of.push_back(type);
  }
}

int Model::widest_row() const { return (network.exchange_width() * (network.precision() == "float32" ? 4 : 8) + 7) / 8; }

// The keyword `overflow` is about full lists alone: atoms that are too close are always worth a warning.
void Model::report_warnings(const std::string& overflow) {
  for (const dpa2_warning kind : {DPA2_WARNING_OVERFLOW, DPA2_WARNING_CLOSE_PAIR, DPA2_WARNING_CLAMP}) {
    const std::string warning = dpa2_last_warning_of(kind);
    if (warning.empty() || (kind == DPA2_WARNING_OVERFLOW && overflow == "ignore")) continue;
    if (kind == DPA2_WARNING_OVERFLOW && overflow == "error") fail(warning);
    if (std::find(said_.begin(), said_.end(), kind) != said_.end()) continue;
    error->warning(FLERR, "{}, model {}: {}. Said once per model and process", style, path, warning);
    said_.push_back(kind);
  }
}

}  // namespace dpa2_lammps
