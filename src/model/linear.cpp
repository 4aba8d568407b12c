#include "model/linear.hpp"

#include <algorithm>
#include <cstddef>
#include <string_view>
#include <utility>

#include "fold/folded.hpp"
#include "model/model.hpp"

namespace dpa2 {
namespace {

/// What is added up over the parts, with a row for every atom, and for ghosts.
struct Sum {
  std::string_view name;
  std::size_t size = 0;
  double* to = nullptr;
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

struct LinearCombination::Pool {
  std::mutex mutex;
  std::vector<std::unique_ptr<Work>> idle;
};

/// A Work that goes back when it is done with.
class LinearCombination::Borrowed {
 public:
  explicit Borrowed(Pool& pool) : pool_(pool) {
    const std::lock_guard<std::mutex> lock(pool_.mutex);
    if (!pool_.idle.empty()) {
      work_ = std::move(pool_.idle.back());
      pool_.idle.pop_back();
    }
    if (!work_) work_ = std::make_unique<Work>();
  }
  ~Borrowed() {
    const std::lock_guard<std::mutex> lock(pool_.mutex);
    try {
      pool_.idle.push_back(std::move(work_));
    } catch (...) {  // then the next evaluation makes another
    }
  }
  Borrowed(const Borrowed&) = delete;
  Borrowed& operator=(const Borrowed&) = delete;
  Work* operator->() const noexcept { return work_.get(); }

 private:
  Pool& pool_;
  std::unique_ptr<Work> work_;
};

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
  const Borrowed work(*pool_);
  const std::size_t n = static_cast<std::size_t>(nlocal), all = static_cast<std::size_t>(nall);
  const Sum sums[] = {
      {"force", 3 * all, out.array("force")}, {"virial", 9, out.array("virial")}, {"atom_virial", 9 * all, out.array("atom_virial")}};
  std::size_t room = 0;
  for (const Sum& sum : sums) room += sum.to != nullptr ? sum.size + 1 : 0;
  work->energies.assign(n, 0.0);
  work->atom_energy.resize(n + 1);  // addresses also where there are no atoms: what is wanted decides about exchanges
  work->weights.resize(n + 1);
  remarks = {};
  for (const Part& part : parts_) {
    const bool first = &part == parts_.data();
    if (!first) work->rows.resize(room);
    for (std::size_t i = 0; i < n; ++i) work->weights[i] = factor(part, types[i], weights != nullptr ? weights[i] : 1.0);
    Outputs own;
    own.set("atom_energy", work->atom_energy.data());
    std::size_t at = 0;
    for (const Sum& sum : sums) {
      if (sum.to == nullptr) continue;
      own.set(sum.name, first ? sum.to : work->rows.data() + at);
      at += sum.size + 1;
    }
    Remarks found;
    of_part(part, types_of(part, types, nall).data(), work->weights.data(), own, found);
    merge(remarks, found);
    for (std::size_t i = 0; i < n; ++i) work->energies[i] += part.weight * work->atom_energy[i];
    if (first) continue;
    for (const Sum& sum : sums) {
      const double* rows = sum.to != nullptr ? own.array(sum.name) : nullptr;
      for (std::size_t k = 0; rows != nullptr && k < sum.size; ++k) sum.to[k] += rows[k];
    }
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
  const Borrowed work(*pool_);
  const std::size_t n = static_cast<std::size_t>(nlocal), all = static_cast<std::size_t>(nall);
  const Sum sums[] = {
      {"force", 3 * all, out.array("force")}, {"virial", 9, out.array("virial")}, {"atom_virial", 9 * all, out.array("atom_virial")}};
  std::size_t room = 0;
  for (const Sum& sum : sums) {
    if (sum.to == nullptr) continue;
    std::fill_n(sum.to, sum.size, 0.0);
    room += sum.size + 1;
  }
  work->weights.resize(n + 1);
  work->rows.resize(room);
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
    std::size_t at = 0;
    for (const Sum& sum : sums) {
      if (sum.to == nullptr) continue;
      results.set(sum.name, work->rows.data() + at);
      at += sum.size + 1;
    }
    Remarks found;
    of_part(part, types_of(part, types, nall).data(), own, results, found);
    merge(remarks, found);
    for (const Sum& sum : sums) {
      const double* rows = sum.to != nullptr ? results.array(sum.name) : nullptr;
      for (std::size_t k = 0; rows != nullptr && k < sum.size; ++k) sum.to[k] += rows[k];
    }
  }
}

}  // namespace dpa2
