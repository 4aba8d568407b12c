#include "model/linear.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <string_view>
#include <utility>

#include "fold/folded.hpp"
#include "model/model.hpp"
#include "model/work_pool.hpp"

namespace dpa2 {
namespace {

/// Forces and virials, as far as they are wanted, added up over the parts: the first part writes, the others add.
class Sums {
 public:
  /// `memory` is where parts leave what is to be added.
  Sums(const Outputs& out, std::size_t nall, std::vector<double>& memory)
      : memory_(memory),
        sums_{{{"force", 3 * nall, out.array("force")},
               {"virial", 9, out.array("virial")},
               {"atom_virial", 9 * nall, out.array("atom_virial")}}} {}

  /// Names the arrays of the next part among its outputs.
  void place(Outputs& own) {
    std::size_t room = 0;
    // One more each: an address also where there are no atoms, since what is wanted decides about exchanges.
    for (const Sum& sum : sums_) room += sum.to != nullptr && !first_ ? sum.size + 1 : 0;
    memory_.resize(room);
    std::size_t at = 0;
    for (const Sum& sum : sums_) {
      if (sum.to == nullptr) continue;
      own.set(sum.name, first_ ? sum.to : memory_.data() + at);
      at += sum.size + 1;
    }
  }
  /// Adds what the part has left there.
  void add(const Outputs& own) {
    for (const Sum& sum : sums_) {
      const double* rows = sum.to != nullptr && !first_ ? own.array(sum.name) : nullptr;
      for (std::size_t k = 0; rows != nullptr && k < sum.size; ++k) sum.to[k] += rows[k];
    }
    first_ = false;
  }

 private:
  struct Sum {
    std::string_view name;
    std::size_t size = 0;
    double* to = nullptr;
  };
  std::vector<double>& memory_;
  std::array<Sum, 3> sums_;
  bool first_ = true;
};

/// Every block's worst atom, the first part's where several have one; the closest of all pairs.
void merge(Remarks& all, const Remarks& of_part) {
  for (const Overflow& o : of_part.overflow)
    if (std::none_of(all.overflow.begin(), all.overflow.end(), [&](const Overflow& known) { return known.block == o.block; }))
      all.overflow.push_back(o);
  if (of_part.closest.i >= 0 && of_part.closest.before(all.closest)) all.closest = of_part.closest;
}

}  // namespace

/// Memory of one evaluation.
struct LinearCombination::Work {
  std::vector<double> energies, atom_energy, weights, rows;
};

struct LinearCombination::Pool : WorkPool<Work> {};

LinearCombination::LinearCombination(const Config& config, Weights weights, const std::string& precision, double skin,
                                     const std::string& device, const gpu::Hooks& hooks)
    : pool_(std::make_unique<Pool>()) {
  for (std::size_t k = 0; k < config.models.size(); ++k) {
    const Config& from = config.models[k];
    Part part;
    part.weight = config.weights[k];
    for (const std::string& name : config.type_map)
      part.types.push_back(static_cast<int>(std::find(from.type_map.begin(), from.type_map.end(), name) - from.type_map.begin()));
    // A skin reaches beyond the part's own cutoff, which may be shorter.
    part.model = std::make_shared<Model>(from, take_part(weights, k), precision, std::min(skin, from.rcut()), true, device, hooks);
    if (&from == &config.base()) base_ = k;
    parts_.push_back(std::move(part));
  }
  bias_ = weights.at("out_bias").data;
  for (const double counted : fold_counted(config).a) counted_.push_back(counted != 0);
}

LinearCombination::~LinearCombination() = default;

std::vector<int> LinearCombination::types_of(const Part& part, const int* types, int n) {
  std::vector<int> out(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = types[i] < 0 ? -1 : part.types[static_cast<std::size_t>(types[i])];
  return out;
}

double LinearCombination::factor(const Part& part, int type, double weight) const {
  return type >= 0 && counted_[static_cast<std::size_t>(type)] != 0 ? part.weight * weight : 0.0;
}

void LinearCombination::evaluate(int nlocal, int nall, const int* types, const double* weights, const Outputs& out, Remarks& remarks,
                                 const Evaluate& of_part) const {
  const Borrowed<Work> work(*pool_);
  const std::size_t n = static_cast<std::size_t>(nlocal);
  Sums sums(out, static_cast<std::size_t>(nall), work->rows);
  work->energies.assign(n, 0.0);
  work->atom_energy.resize(n + 1);  // addresses also where there are no atoms
  work->weights.resize(n + 1);
  remarks = {};
  for (const Part& part : parts_) {
    for (std::size_t i = 0; i < n; ++i) work->weights[i] = factor(part, types[i], weights != nullptr ? weights[i] : 1.0);
    Outputs own;
    own.set("atom_energy", work->atom_energy.data());
    sums.place(own);
    Remarks found;
    of_part(part, types_of(part, types, nall).data(), work->weights.data(), own, found);
    merge(remarks, found);
    for (std::size_t i = 0; i < n; ++i) work->energies[i] += part.weight * work->atom_energy[i];
    sums.add(own);
  }
  double total = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const bool counts = types[i] >= 0 && counted_[static_cast<std::size_t>(types[i])] != 0;
    work->energies[i] = counts ? work->energies[i] + bias_[static_cast<std::size_t>(types[i])] : 0.0;
    total += work->energies[i];
  }
  if (double* energy = out.array("energy")) *energy = total;
  if (double* atom_energy = out.array("atom_energy")) std::copy(work->energies.begin(), work->energies.end(), atom_energy);
}

void LinearCombination::vjp(int nlocal, int nall, const int* types, const Seeds& seeds, const Outputs& out, Remarks& remarks,
                            const Vjp& of_part) const {
  const Borrowed<Work> work(*pool_);
  const std::size_t n = static_cast<std::size_t>(nlocal);
  Sums sums(out, static_cast<std::size_t>(nall), work->rows);
  work->weights.resize(n + 1);
  remarks = {};
  for (const Part& part : parts_) {
    Seeds own;
    if (&part == &base()) own = seeds;
    if (seeds.head != nullptr) {
      for (std::size_t i = 0; i < n; ++i) work->weights[i] = factor(part, types[i], seeds.head[i]);
      own.head = work->weights.data();
    } else if (&part != &base()) {
      continue;
    }
    Outputs results;
    sums.place(results);
    Remarks found;
    of_part(part, types_of(part, types, nall).data(), own, results, found);
    merge(remarks, found);
    sums.add(results);
  }
}

}  // namespace dpa2
