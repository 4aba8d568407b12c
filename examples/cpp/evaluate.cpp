// Energy, forces and virial of a structure with dpa2.hpp, twice: with the library's own neighbour search, and as a program that
// has ghost atoms and neighbour lists of its own hands them over. Both give the same numbers.
//
//   c++ -std=c++17 evaluate.cpp $(python -m dpa2 --cflags --libs) -o evaluate
//   ./evaluate model.safetensors structure.extxyz [threads [device]]
//
// The device is cpu, cuda or cuda:N: the arrays are the same, and threads mean nothing on a GPU.
// The structure is an extended XYZ file of one frame whose columns start with the element and the position. With a Lattice it is
// periodic along all three vectors, without one along none.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "dpa2.hpp"

namespace {

std::size_t at(int i) { return static_cast<std::size_t>(i); }

dpa2::Structure read(const std::string& path, const dpa2::Model& model) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error(path + ": cannot be read");
  std::string line, comment;
  std::getline(file, line);
  const int natoms = std::stoi(line);
  std::getline(file, comment);
  if (comment.find("Properties=") != std::string::npos && comment.find("Properties=species:S:1:pos:R:3") == std::string::npos)
    throw std::runtime_error(path + ": the columns must start with species:S:1:pos:R:3");

  dpa2::Structure s;
  if (const std::size_t found = comment.find("Lattice=\""); found != std::string::npos) {
    std::istringstream numbers(comment.substr(found + 9));
    s.cell.emplace();
    for (double& number : s.cell->rows)
      if (!(numbers >> number)) throw std::runtime_error(path + ": the Lattice does not have nine numbers");
  }
  for (int i = 0; i < natoms; ++i) {
    std::getline(file, line);
    std::istringstream words(line);
    std::string symbol;
    double x = 0, y = 0, z = 0;
    if (!(words >> symbol >> x >> y >> z)) throw std::runtime_error(path + ": line " + std::to_string(i + 3) + " is not an element and a position");
    s.types.push_back(model.type_index(symbol));
    if (s.types.back() < 0) throw std::runtime_error("atom " + std::to_string(i) + ": the model does not know " + symbol);
    s.coords.insert(s.coords.end(), {x, y, z});
  }
  return s;
}

double distance(const double* a, const double* b) { return std::hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]); }

/// How many images along a cell vector, in either direction, can have an atom within rcut of one that is here. `spread` is the
/// largest distance between two atoms, in the cell or not.
int images(const std::array<double, 9>& box, int axis, double rcut, double spread) {
  const double *a = &box[at(3 * ((axis + 1) % 3))], *b = &box[at(3 * ((axis + 2) % 3))], *c = &box[at(3 * axis)];
  const double normal[3] = {a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]};
  const double area = std::hypot(normal[0], normal[1], normal[2]);
  const double height = std::abs(normal[0] * c[0] + normal[1] * c[1] + normal[2] * c[2]) / area;
  return static_cast<int>((rcut + spread) / height) + 1;
}

/// Atoms and ghosts, as a program with one process would have them: ghosts are the periodic images within the cutoff.
struct Parts {
  int nlocal = 0, nall = 0;
  std::vector<double> coords;           // (nall, 3)
  std::vector<int> types, owner;        // (nall); the owner of a local atom is the atom itself
  std::vector<std::vector<int>> lists;  // (nlocal) neighbours, in both directions

  Parts(const dpa2::Structure& s, double rcut) : nlocal(s.natoms()), nall(nlocal), coords(s.coords), types(s.types), lists(s.types.size()) {
    for (int i = 0; i < nlocal; ++i) owner.push_back(i);
    if (s.cell) add_ghosts(s, rcut);
    for (int i = 0; i < nlocal; ++i)
      for (int j = 0; j < nall; ++j)
        if (j != i && distance(&coords[at(3 * i)], &coords[at(3 * j)]) <= rcut) lists[at(i)].push_back(j);
  }

 private:
  void add_ghosts(const dpa2::Structure& s, double rcut) {
    double spread = 0;  // the largest distance between two atoms
    for (int i = 0; i < nlocal; ++i)
      for (int j = 0; j < i; ++j) spread = std::max(spread, distance(&s.coords[at(3 * i)], &s.coords[at(3 * j)]));
    const std::array<double, 9>& box = s.cell->rows;
    const int most[3] = {images(box, 0, rcut, spread), images(box, 1, rcut, spread), images(box, 2, rcut, spread)};
    for (int a = -most[0]; a <= most[0]; ++a)
      for (int b = -most[1]; b <= most[1]; ++b)
        for (int c = -most[2]; c <= most[2]; ++c)
          if (a != 0 || b != 0 || c != 0) add_image(s, {a, b, c}, rcut);
  }
  void add_image(const dpa2::Structure& s, const std::array<int, 3>& n, double rcut) {
    for (int j = 0; j < nlocal; ++j) {
      double x[3];
      for (int k = 0; k < 3; ++k) {
        x[k] = s.coords[at(3 * j + k)];
        for (int a = 0; a < 3; ++a) x[k] += n[at(a)] * s.cell->rows[at(3 * a + k)];
      }
      bool near = false;
      for (int i = 0; i < nlocal && !near; ++i) near = distance(&s.coords[at(3 * i)], x) <= rcut;
      if (!near) continue;
      coords.insert(coords.end(), x, x + 3);
      types.push_back(types[at(j)]);
      owner.push_back(j);
      ++nall;
    }
  }
};

/// What a parallel program does with messages: owners' rows to their ghosts, and ghosts' rows added to their owners'.
template <class T>
void to_ghosts(const Parts& p, T* rows, int width) {
  for (int g = p.nlocal; g < p.nall; ++g)
    for (int k = 0; k < width; ++k) rows[at(g) * at(width) + at(k)] = rows[at(p.owner[at(g)]) * at(width) + at(k)];
}
template <class T>
void to_owners(const Parts& p, T* rows, int width) {
  for (int g = p.nlocal; g < p.nall; ++g)
    for (int k = 0; k < width; ++k) rows[at(p.owner[at(g)]) * at(width) + at(k)] += rows[at(g) * at(width) + at(k)];
}

dpa2::Result evaluate_parts(const dpa2::Model& model, const dpa2::Structure& s, int threads) {
  const Parts parts(s, model.rcut());
  std::vector<int> numneigh;
  std::vector<const int*> firstneigh;
  for (const std::vector<int>& list : parts.lists) {
    numneigh.push_back(static_cast<int>(list.size()));
    firstneigh.push_back(list.data());
  }
  // Rows come in the precision of the model: `size` bytes per number.
  dpa2::Exchange exchange(
      [&](void* rows, int width, int size) {
        size == 8 ? to_ghosts(parts, static_cast<double*>(rows), width) : to_ghosts(parts, static_cast<float*>(rows), width);
      },
      [&](void* rows, int width, int size) {
        size == 8 ? to_owners(parts, static_cast<double*>(rows), width) : to_owners(parts, static_cast<float*>(rows), width);
      });

  dpa2::Domain domain;  // keep it for the next step: then nothing is allocated
  dpa2::check(dpa2_domain_set_atoms(domain.handle(), parts.nlocal, parts.nall, parts.coords.data(), parts.owner.data(), numneigh.data(),
                                    firstneigh.data(), -1));
  dpa2::Result r;
  r.forces.resize(3 * at(parts.nall));
  r.atom_energy.resize(at(parts.nlocal));
  const int pad_type = parts.nlocal > 0 ? parts.types[0] : -1;
  exchange.check(dpa2_domain_evaluate(domain.handle(), model.handle(), parts.types.data(), pad_type, nullptr, nullptr, exchange.handle(), threads,
                                      &r.energy, r.forces.data(), r.virial.data(), r.atom_energy.data(), nullptr));
  to_owners(parts, r.forces.data(), 3);  // what the energies do to ghosts belongs to their owners
  r.forces.resize(3 * at(parts.nlocal));
  std::printf("ghosts %d\n", parts.nall - parts.nlocal);
  return r;
}

void print(const dpa2::Result& r) {
  std::printf("energy %.17g\n", r.energy);
  for (std::size_t k = 0; k < 9; k += 3) std::printf("virial %.17g %.17g %.17g\n", r.virial[k], r.virial[k + 1], r.virial[k + 2]);
  for (std::size_t k = 0; k < r.forces.size(); k += 3) std::printf("force %.17g %.17g %.17g\n", r.forces[k], r.forces[k + 1], r.forces[k + 2]);
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc < 3 || argc > 5) {
    std::cerr << "usage: " << argv[0] << " model.safetensors structure.extxyz [threads [device]]\n";
    return 2;
  }
  const dpa2::Model model(argv[1], "", 0.0, argc > 4 ? argv[4] : "cpu");
  const dpa2::Structure s = read(argv[2], model);
  const int threads = argc > 3 ? std::atoi(argv[3]) : 1;
  const dpa2::Result whole = model.evaluate(s, threads);
  if (!whole.warning.empty()) std::cerr << "dpa2: warning: " << whole.warning << '\n';
  print(whole);
  print(evaluate_parts(model, s, threads));
  return 0;
} catch (const dpa2::Error& error) {
  std::cerr << "dpa2: " << error.what() << " (status " << error.status() << ")\n";
  return 1;
} catch (const std::exception& error) {
  std::cerr << error.what() << '\n';
  return 1;
}
