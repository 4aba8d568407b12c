#include "schema/hybrid.hpp"

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <string>
#include <utility>

#include "schema/options.hpp"
#include "schema/reader.hpp"

namespace dpa2 {
namespace {

constexpr int max_width = 10'000'000;  // of a descriptor, and of all beside each other

/// What se_e2_a and dpa1 have in common.
void check_block(const Config& c, const JsonObject& o) {
  const RepinitConfig& r = c.repinit;
  if (!(r.rcut_smth >= 0.0 && r.rcut_smth < r.rcut))
    throw inconsistent(o.path("rcut_smth"), " is ", r.rcut_smth, " and rcut ", r.rcut, ", expected 0 <= rcut_smth < rcut");
  if (r.axis_neuron > r.neuron.back())
    throw inconsistent(o.path("axis_neuron"), " is ", r.axis_neuron, ", above the last neuron ", r.neuron.back());
  if (std::int64_t{r.axis_neuron} * r.neuron.back() > max_width)
    throw inconsistent(o.path("neuron"), " is unreasonably wide: ", r.neuron.back(), " times ", r.axis_neuron);
  const std::int64_t widest = std::max(2 * r.tebd_dim + 1, *std::max_element(r.neuron.begin(), r.neuron.end()));
  if (std::int64_t{c.ntypes()} * c.ntypes() * widest > max_folded)
    throw inconsistent(o.path("neuron"), " is unreasonably wide for the pairs of ", c.ntypes(), " types");
}

void read_se_e2_a(Config& c, JsonObject& o) {
  const Reader reader(c);
  reader.read(o, se_options(), c);
  SeE2aConfig own;
  reader.read(o, se_e2_a_options(), own);
  if (own.sel.size() != static_cast<std::size_t>(c.ntypes()))
    throw inconsistent(o.path("sel"), " has ", own.sel.size(), " entries, but there are ", c.ntypes(), " types");
  const std::int64_t slots = std::accumulate(own.sel.begin(), own.sel.end(), std::int64_t{0});
  if (slots < 1 || slots > max_neighbours) throw inconsistent(o.path("sel"), " is ", slots, " in all, expected 1 to ", max_neighbours);
  own.nsel = static_cast<int>(slots);
  c.repinit = own;
  check_block(c, o);
}

void read_dpa1(Config& c, JsonObject& o) {
  const Reader reader(c);
  reader.read(o, se_options(), c);
  reader.read(o, dpa1_options(), c);
  Dpa1Config own;
  reader.read(o, dpa1_block_options(), own);
  c.repinit = own;
  check_block(c, o);
}

bool has(const std::vector<Config>& descriptors, std::size_t first, const char* type) {
  return std::any_of(descriptors.begin() + static_cast<std::ptrdiff_t>(first), descriptors.end(),
                     [&](const Config& d) { return d.descriptor_type == type; });
}

/// Appends what stands in a hybrid descriptor to those of the whole; `at` as in Config.
void read_list(Config& whole, JsonObject& hybrid, const std::string& at, int depth) {
  static_cast<void>(hybrid.word("type"));
  const std::size_t first = whole.descriptors.size();
  std::size_t number = 0;
  for (JsonObject& o : hybrid.objects("list")) {
    const std::string own = at + ".descrpt_list." + std::to_string(number++);
    if (is_hybrid(o)) {
      if (depth == max_depth_of_hybrids)
        throw unsupported(o.path("list"), " is the list of a hybrid descriptor in ", max_depth_of_hybrids, " others");
      read_list(whole, o, own, depth + 1);
      continue;
    }
    if (whole.descriptors.size() == max_models)
      throw inconsistent(hybrid.path("list"), " must have at most ", max_models, " descriptors in all");
    Config c;
    c.type_map = whole.type_map;
    c.at = own;
    c.descriptor_type = o.word("type");
    if (c.descriptor_type == "dpa2") {
      read_dpa2(c, o);
      check_dpa2(c);
    } else if (c.descriptor_type == "se_e2_a") {
      read_se_e2_a(c, o);
    } else if (c.descriptor_type == "dpa1") {
      read_dpa1(c, o);
    } else {
      throw unsupported(o.path("type"), " is '", printable(c.descriptor_type),
                        "'; supported in a hybrid descriptor are dpa2, se_e2_a, dpa1", " and hybrid");
    }
    o.finish();
    whole.descriptors.push_back(std::move(c));
  }
  hybrid.finish();
  if (!has(whole.descriptors, first, "dpa2") && (depth == 0 || !has(whole.descriptors, first, "dpa1")))
    throw unsupported(hybrid.path("list"), " has no ", depth == 0 ? "dpa2" : "dpa2 or dpa1",
                      " descriptor: such hybrid descriptors are not supported");
  if (depth == 0) return;
  int nsel = 0;
  for (std::size_t k = first; k < whole.descriptors.size(); ++k) nsel = std::max(nsel, whole.descriptors[k].nsel());
  for (std::size_t k = first; k < whole.descriptors.size(); ++k) {
    int& kept = whole.descriptors[k].kept;
    kept = kept == 0 ? nsel : std::min(kept, nsel);
  }
}

}  // namespace

bool is_hybrid(JsonObject& descriptor) { return descriptor.has("type") && descriptor.word("type") == hybrid_name; }

void read_hybrid(Config& c, JsonObject& descriptor) {
  read_list(c, descriptor, "", 0);
  c.descriptor_type = hybrid_name;
  std::int64_t width = 0, rows = 0;
  for (const Config& part : c.descriptors) {
    width += part.descriptor_dim();
    rows += part.g2_dim();
  }
  if (width > max_width || rows > max_width)
    throw inconsistent(descriptor.path("list"), " is unreasonably wide: ", width, " numbers per atom, rotation matrices of ", rows,
                       " rows");
}

}  // namespace dpa2
