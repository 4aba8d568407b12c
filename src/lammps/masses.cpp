// A mass that is not that of the element: most often types in another order than pair_coeff has them.
#include <mpi.h>

#include <cmath>
#include <cstdio>
#include <cstring>

#include "model.h"

#include <lammps/atom.h>
#include <lammps/comm.h>
#include <lammps/error.h>
#include <lammps/update.h>

using namespace LAMMPS_NS;

namespace dpa2_lammps {

namespace {

// Standard atomic masses, g/mol; of elements without stable isotopes that of a long-lived one.
const struct {
  const char* symbol;
  double mass;
} elements_by_mass[] = {
    {"H", 1.008},   {"He", 4.0026}, {"Li", 6.94},   {"Be", 9.0122}, {"B", 10.81},   {"C", 12.011},  {"N", 14.007},  {"O", 15.999},
    {"F", 18.998},  {"Ne", 20.180}, {"Na", 22.990}, {"Mg", 24.305}, {"Al", 26.982}, {"Si", 28.085}, {"P", 30.974},  {"S", 32.06},
    {"Cl", 35.45},  {"Ar", 39.95},  {"K", 39.098},  {"Ca", 40.078}, {"Sc", 44.956}, {"Ti", 47.867}, {"V", 50.942},  {"Cr", 51.996},
    {"Mn", 54.938}, {"Fe", 55.845}, {"Co", 58.933}, {"Ni", 58.693}, {"Cu", 63.546}, {"Zn", 65.38},  {"Ga", 69.723}, {"Ge", 72.630},
    {"As", 74.922}, {"Se", 78.971}, {"Br", 79.904}, {"Kr", 83.798}, {"Rb", 85.468}, {"Sr", 87.62},  {"Y", 88.906},  {"Zr", 91.224},
    {"Nb", 92.906}, {"Mo", 95.95},  {"Tc", 98.0},   {"Ru", 101.07}, {"Rh", 102.91}, {"Pd", 106.42}, {"Ag", 107.87}, {"Cd", 112.41},
    {"In", 114.82}, {"Sn", 118.71}, {"Sb", 121.76}, {"Te", 127.60}, {"I", 126.90},  {"Xe", 131.29}, {"Cs", 132.91}, {"Ba", 137.33},
    {"La", 138.91}, {"Ce", 140.12}, {"Pr", 140.91}, {"Nd", 144.24}, {"Pm", 145.0},  {"Sm", 150.36}, {"Eu", 151.96}, {"Gd", 157.25},
    {"Tb", 158.93}, {"Dy", 162.50}, {"Ho", 164.93}, {"Er", 167.26}, {"Tm", 168.93}, {"Yb", 173.05}, {"Lu", 174.97}, {"Hf", 178.49},
    {"Ta", 180.95}, {"W", 183.84},  {"Re", 186.21}, {"Os", 190.23}, {"Ir", 192.22}, {"Pt", 195.08}, {"Au", 196.97}, {"Hg", 200.59},
    {"Tl", 204.38}, {"Pb", 207.2},  {"Bi", 208.98}, {"Po", 209.0},  {"At", 210.0},  {"Rn", 222.0},  {"Fr", 223.0},  {"Ra", 226.0},
    {"Ac", 227.0},  {"Th", 232.04}, {"Pa", 231.04}, {"U", 238.03},  {"Np", 237.0},  {"Pu", 244.0},  {"Am", 243.0},  {"Cm", 247.0},
    {"Bk", 247.0},  {"Cf", 251.0},  {"Es", 252.0},  {"Fm", 257.0},  {"Md", 258.0},  {"No", 259.0},  {"Lr", 262.0},  {"Rf", 267.0},
    {"Db", 268.0},  {"Sg", 269.0},  {"Bh", 270.0},  {"Hs", 269.0},  {"Mt", 278.0},  {"Ds", 281.0},  {"Rg", 282.0},  {"Cn", 285.0},
    {"Nh", 286.0},  {"Fl", 289.0},  {"Mc", 290.0},  {"Lv", 293.0},  {"Ts", 294.0},  {"Og", 294.0}};

/// Of a name that is no element: 0.
double mass_of(const std::string& symbol) {
  for (const auto& e : elements_by_mass)
    if (symbol == e.symbol) return e.mass;
  return 0.0;
}

bool differs(double mass, double of_element) { return std::fabs(mass - of_element) > 0.2 * of_element; }

const char* nearest(double mass) {
  const char* best = "";
  double distance = 1e300;
  for (const auto& e : elements_by_mass)
    if (std::fabs(e.mass - mass) < distance) {
      distance = std::fabs(e.mass - mass);
      best = e.symbol;
    }
  return best;
}

/// g/mol in LAMMPS's units of mass.
double unit_of_mass(const char* style) {
  const double gram = 1.66053906660e-24;
  if (std::strcmp(style, "si") == 0) return 1e-3 * gram;
  if (std::strcmp(style, "cgs") == 0) return gram;
  if (std::strcmp(style, "micro") == 0) return 1e12 * gram;
  if (std::strcmp(style, "nano") == 0) return 1e18 * gram;
  return 1.0;
}

}  // namespace

// g/mol of every type, the mean where atoms have masses of their own; 0 where there is none.
std::vector<double> Model::masses() const {
  const std::size_t n = static_cast<std::size_t>(atom->ntypes) + 1;
  std::vector<double> mass(n), mine(2 * n), sums(2 * n);
  if (atom->rmass != nullptr) {
    for (int i = 0; i < atom->nlocal; i++) {
      mine[static_cast<std::size_t>(atom->type[i])] += atom->rmass[i];
      mine[n + static_cast<std::size_t>(atom->type[i])] += 1.0;
    }
    MPI_Allreduce(mine.data(), sums.data(), static_cast<int>(2 * n), MPI_DOUBLE, MPI_SUM, world);
  }
  for (std::size_t t = 1; t < n; t++) {
    if (atom->rmass != nullptr)
      mass[t] = sums[n + t] > 0.0 ? sums[t] / sums[n + t] : 0.0;
    else if (atom->mass != nullptr && atom->mass_setflag[t] != 0)
      mass[t] = atom->mass[t];
    mass[t] /= unit_of_mass(update->unit_style);
  }
  return mass;
}

void Model::warn_of_masses(std::string& said) const {
  const std::vector<std::string> symbols = network.type_map();
  const std::vector<double> mass = masses();
  std::string found;
  for (std::size_t t = 1; t < mass.size(); t++) {
    if (type_of[t] < 0 || mass[t] <= 0.0) continue;
    const std::string& symbol = symbols[static_cast<std::size_t>(type_of[t])];
    const double expected = mass_of(symbol);
    if (expected == 0.0 || !differs(mass[t], expected)) continue;
    const char* like = nearest(mass[t]);
    if (symbol == "H" && mass[t] > 1.8 && mass[t] < 3.3) like = "deuterium or tritium";
    for (const std::string& other : symbols)  // rather one that the model has
      if (std::fabs(mass_of(other) - mass[t]) < 0.05 * mass[t]) like = other.c_str();
    char text[200];
    std::snprintf(text, sizeof text, "%s type %d is %.60s (%g g/mol) but has a mass of %g, that of %.60s", found.empty() ? "" : ";",
                  static_cast<int>(t), symbol.c_str(), expected, mass[t], like);
    found += text;
  }
  if (comm->me == 0 && !found.empty() && found != said)
    error->warning(FLERR,
                   "{}: by {}, atom{}. Are the elements in the order of the types? If these masses are meant (isotopes, repartitioned "
                   "masses), all is well: energies do not depend on them",
                   style, elements_place, found);
  said = found;
}

}  // namespace dpa2_lammps
