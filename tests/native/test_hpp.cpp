// The C++ header over the C interface: owners, exceptions, and callbacks that throw.
#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "check.hpp"
#include "dpa2.hpp"

namespace {

dpa2::Structure water() {
  dpa2::Structure s;
  s.coords = {0.0, 0.0, 0.0, 0.96, 0.0, 0.0, -0.24, 0.93, 0.0};
  s.types = {0, 1, 1};
  return s;
}

void test_model() {
  CHECK_THROWS(dpa2::Model("absent.safetensors"), DPA2_MODEL_FILE, "absent.safetensors");
  CHECK_THROWS(dpa2::Model(DPA2_TEST_MODEL, "float16"), DPA2_INVALID_INPUT, "float16");
  CHECK_THROWS(dpa2::Model(DPA2_TEST_MODEL, "", -1.0), DPA2_INVALID_INPUT, "skin");
  std::ifstream file(DPA2_TEST_MODEL, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  CHECK_THROWS(dpa2::Model::from_bytes(bytes.data(), 100, "what came"), DPA2_MODEL_FILE, "what came");
  const dpa2::Model sent = dpa2::Model::from_bytes(bytes.data(), bytes.size(), "what came", "float64");
  dpa2::Model model(DPA2_TEST_MODEL, "float64");
  const dpa2::Model copy = model;
  model = sent;  // the copy keeps its own
  CHECK(copy.handle() != model.handle() && model.handle() == sent.handle());
  CHECK((copy.type_map() == std::vector<std::string>{"O", "H"}) && copy.type_index("H") == 1 && copy.type_index("Xx") == -1);
  CHECK(copy.rcut() == 6.0 && copy.descriptor_dim() == 72 && copy.fparam_dim() == 0 && copy.aparam_dim() == 0);
  CHECK(copy.precision() == "float64" && dpa2::Model(DPA2_TEST_MODEL).precision() == "float32");
  CHECK(copy.exchange_width() >= 64 && copy.memory_estimate(100, 50.0) > 0 && copy.config().front() == '{');

  const dpa2::Result a = copy.evaluate(water()), b = sent.evaluate(water(), 2, true);
  CHECK(a.warning.empty() && a.forces.size() == 9 && a.atom_energy.size() == 3 && a.atom_virial.empty() && b.atom_virial.size() == 27);
  CHECK_NEAR(a.energy, b.energy, 1e-10);
  CHECK_NEAR(a.energy, a.atom_energy[0] + a.atom_energy[1] + a.atom_energy[2], 1e-9);
  for (std::size_t k = 0; k < 9; ++k) CHECK_NEAR(b.virial[k], b.atom_virial[k] + b.atom_virial[9 + k] + b.atom_virial[18 + k], 1e-10);
  CHECK(copy.descriptor(water()).size() == 3 * 72);

  dpa2::Structure wrong = water();
  wrong.coords[4] = NAN;
  CHECK_THROWS((void)copy.evaluate(wrong), DPA2_INVALID_INPUT, "coordinate 1 of atom 1 is not finite");
  CHECK_THROWS((void)copy.descriptor(wrong), DPA2_INVALID_INPUT, "coordinate 1 of atom 1 is not finite");
  wrong = water();
  wrong.aparam = {1.0};
  CHECK_THROWS((void)copy.evaluate(wrong), DPA2_INVALID_INPUT, "aparam must have 0 numbers, not 1");
  wrong = water();
  wrong.cell = dpa2::Cell{};
  CHECK_THROWS((void)copy.evaluate(wrong), DPA2_INVALID_INPUT, "the box is singular");
  bool thrown = false;
  wrong.coords.pop_back();
  try {
    (void)copy.evaluate(wrong);
  } catch (const std::invalid_argument&) { thrown = true; }
  CHECK(thrown);
  const dpa2::Result none = copy.evaluate(dpa2::Structure{});
  CHECK(none.energy == 0.0 && none.forces.empty());
}

/// Outputs by name are those of evaluate and descriptor, and gradients with weights 1 are minus forces and virial.
void test_outputs() {
  const dpa2::Model model(DPA2_TEST_MODEL, "float64");
  const dpa2::Structure s = water();
  CHECK(model.kind() == "energy");
  std::vector<std::string> names;
  for (const dpa2::Output& o : model.outputs()) names.push_back(o.name);
  CHECK((names == std::vector<std::string>{"energy", "atom_energy", "force", "virial", "atom_virial", "descriptor", "rot_mat"}));
  const dpa2::Output energy = model.outputs()[0], force = model.outputs()[2], rotation = model.outputs()[6];
  CHECK(energy.reduction == "sum" && energy.of == "atom_energy" && energy.unit == "eV" && !energy.per_atom);
  CHECK(force.per_atom && force.ghosts && force.of == "energy" && force.shape == std::vector<int>{3});
  CHECK(rotation.shape.size() == 2 && rotation.shape[1] == 3 && !rotation.ghosts && rotation.unit.empty());

  const dpa2::Result expected = model.evaluate(s, 1, true);
  const dpa2::Arrays found = model.compute(s, names);
  CHECK(found.at("energy")[0] == expected.energy && found.at("force") == expected.forces &&
        found.at("atom_energy") == expected.atom_energy);
  CHECK(std::equal(expected.virial.begin(), expected.virial.end(), found.at("virial").begin()) &&
        found.at("atom_virial") == expected.atom_virial);
  CHECK(found.at("descriptor") == model.descriptor(s) && found.at("rot_mat").size() == 9 * static_cast<std::size_t>(rotation.shape[0]));

  const dpa2::Gradient gradient = model.vjp(s, {{"atom_energy", {1.0, 1.0, 1.0}}});
  for (std::size_t k = 0; k < 9; ++k) CHECK(gradient.coords[k] == -expected.forces[k] && gradient.strain[k] == -expected.virial[k]);
  CHECK(gradient.warning.empty());
  CHECK_THROWS((void)model.compute(s, {"energy", "dipole"}), DPA2_INVALID_INPUT,
               "the model has no output 'dipole'; it has energy, atom_energy, force");
  CHECK_THROWS((void)model.compute(s, {}), DPA2_INVALID_INPUT, "at least one of the outputs");
  CHECK_THROWS((void)model.vjp(s, {{"atom_energy", {1.0}}}), DPA2_INVALID_INPUT, "the weights of atom_energy must have 3 numbers, not 1");
  CHECK_THROWS((void)model.vjp(s, {{"force", std::vector<double>(9)}}), DPA2_INVALID_INPUT,
               "there is no gradient of 'force'; weights may be those of atom_energy, descriptor, rot_mat");
}

/// Three atoms and no ghosts, through a domain.
void test_domain() {
  const dpa2::Model model(DPA2_TEST_MODEL, "float64");
  const dpa2::Structure s = water();
  const dpa2::Result expected = model.evaluate(s);
  const int lists[3][2] = {{1, 2}, {0, 2}, {0, 1}}, numneigh[3] = {2, 2, 2};
  const int* const firstneigh[3] = {lists[0], lists[1], lists[2]};
  std::vector<std::pair<char, int>> calls;
  bool bad = false;
  dpa2::Exchange exchange(
      [&](void*, int, int size) {
        if (bad) throw std::out_of_range("no such neighbour");
        calls.emplace_back('f', size);
      },
      [&](void*, int, int size) { calls.emplace_back('r', size); });
  dpa2::Domain first;
  dpa2::Domain domain = std::move(first);
  dpa2::check(dpa2_domain_set_atoms(domain.handle(), 3, 3, s.coords.data(), nullptr, numneigh, firstneigh, -1));
  const auto evaluate = [&](dpa2::Result& r) {
    r.forces.assign(9, NAN);
    return dpa2_domain_evaluate(domain.handle(), model.handle(), s.types.data(), 0, nullptr, nullptr, exchange.handle(), 1, &r.energy,
                                r.forces.data(), r.virial.data(), nullptr, nullptr);
  };
  dpa2::Result r;
  exchange.check(evaluate(r));
  CHECK_NEAR(r.energy, expected.energy, 1e-10);
  for (std::size_t k = 0; k < 9; ++k) CHECK_NEAR(r.forces[k], expected.forces[k], 1e-10);
  CHECK(calls.size() == 6 && calls.front() == std::make_pair('f', 8) && calls.back() == std::make_pair('r', 8));

  bad = true;
  std::string what;
  try {
    exchange.check(evaluate(r));
  } catch (const std::out_of_range& e) { what = e.what(); }
  CHECK(what == "no such neighbour");
  bad = false;
  exchange.check(evaluate(r));  // what was thrown is forgotten
  CHECK_NEAR(r.energy, expected.energy, 1e-10);
  CHECK_THROWS(dpa2::check(dpa2_domain_set_atoms(domain.handle(), 3, 2, s.coords.data(), nullptr, numneigh, firstneigh, -1)),
               DPA2_INVALID_INPUT, "3 centres among 2 atoms");
}

}  // namespace

int main() {
  test_model();
  test_outputs();
  test_domain();
  return check::finish();
}
