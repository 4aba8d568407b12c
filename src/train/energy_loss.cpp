// Energies, forces, virials, energies of atoms, generalized forces.
#include <array>
#include <cmath>
#include <optional>

#include "error.hpp"
#include "train/batch_loss.hpp"

namespace dpa2::train {
namespace {

enum class Measure { squares, huber, absolute };

class EnergyLoss final : public BatchLoss {
 public:
  EnergyLoss(Section& section, const LossModel& model);

  [[nodiscard]] std::vector<LabelSpec> labels() const override;
  [[nodiscard]] bool forces() const override { return with_f_ || with_pf_ || with_gf_; }
  [[nodiscard]] bool virial() const override { return with_v_; }
  void add(const LossFrame& frame, const LossSeeds& seeds) override;
  [[nodiscard]] std::vector<double*> sums() override {
    std::vector<double*> out;
    for (Sums* const s : {&sum_e_, &sum_f_, &sum_v_, &sum_ae_, &sum_pf_, &sum_gf_}) out.insert(out.end(), {&s->loss, &s->squares});
    return out;
  }
  [[nodiscard]] double value() const override;
  [[nodiscard]] Parts parts() const override;

 private:
  /// A term: its sum in the loss, and the squares that are displayed in place of it.
  struct Sums {
    double loss = 0.0, squares = 0.0;
    void add(double value, double square) {
      loss += value;
      squares += square;
    }
  };

  void reset() override;
  [[nodiscard]] Cost cost(double deviation, double delta) const;
  [[nodiscard]] bool reads_forces() const { return f_.on() || pf_.on() || gf_.on(); }
  void add_energy(const LossFrame& frame, const LossSeeds& seeds);
  void add_atoms(const LossFrame& frame, const LossSeeds& seeds);
  void add_forces(const LossFrame& frame, const LossSeeds& seeds);
  void add_force(const double* deviation, double* slope);
  void add_generalized(const LossFrame& frame, const LossSeeds& seeds);
  void add_virial(const LossFrame& frame, const LossSeeds& seeds);

  Prefactor e_, f_, v_, ae_, pf_, gf_;
  Measure measure_ = Measure::squares;
  bool default_pref_ = false, coefficients_ = false, norm_ = false, intensive_ = false;
  std::optional<double> relative_;
  int generalized_ = 0;
  std::vector<double> delta_;

  // Of the batch: which terms it has, their prefactors and sums.
  bool with_e_ = false, with_f_ = false, with_v_ = false, with_ae_ = false, with_pf_ = false, with_gf_ = false;
  double p_e_ = 0.0, p_f_ = 0.0, p_v_ = 0.0, p_ae_ = 0.0, p_pf_ = 0.0, p_gf_ = 0.0;
  Sums sum_e_, sum_f_, sum_v_, sum_ae_, sum_pf_, sum_gf_;
};

EnergyLoss::EnergyLoss(Section& section, const LossModel& model) : BatchLoss(section, model) {
  e_ = section.prefactor("e", 0.02, 1.0);
  f_ = section.prefactor("f", 1000.0, 1.0);
  v_ = section.prefactor("v", 0.0, 0.0);
  ae_ = section.prefactor("ae", 0.0, 0.0);
  pf_ = section.prefactor("pf", 0.0, 0.0);
  gf_ = section.prefactor("gf", 0.0, 0.0);
  const Prefactor h = section.prefactor("h", 0.0, 0.0);
  default_pref_ = section.boolean("use_default_pf", false);
  relative_ = section.number_or_null("relative_f");
  coefficients_ = section.boolean("enable_atom_ener_coeff", false);
  generalized_ = section.integer("numb_generalized_coord", 0, 0, 1'000'000);
  const bool mae = section.word("loss_func", "mse", {"mse", "mae"}) == "mae";
  const bool use_huber = section.boolean("use_huber", false);
  norm_ = section.boolean("f_use_norm", false);
  intensive_ = section.boolean("intensive_ener_virial", false);
  delta_ = section.numbers("huber_delta", 0.01, 3);
  if (mae)
    measure_ = Measure::absolute;
  else if (use_huber)
    measure_ = Measure::huber;

  if (h.start != 0.0 || h.limit != 0.0)
    throw unsupported("dpa2 does not train with Hessians: set loss.start_pref_h and loss.limit_pref_h to 0");
  if (gf_.on() && generalized_ < 1)
    throw invalid_input("loss.numb_generalized_coord is ", generalized_,
                        ": generalized forces (start_pref_gf, limit_pref_gf) need at least one coordinate");
  if (norm_ && measure_ == Measure::squares) throw invalid_input("loss.f_use_norm needs use_huber, or the loss_func 'mae'");
  if (use_huber && (pf_.on() || gf_.on() || relative_))
    throw invalid_input("loss.use_huber does not go with atom_pref (start_pref_pf), generalized forces (start_pref_gf) or relative_f");
}

std::vector<LabelSpec> EnergyLoss::labels() const {
  std::vector<LabelSpec> out;
  if (e_.on()) out.push_back({Label::energy, "energy", 1, false, false});
  if (reads_forces()) out.push_back({Label::force, "force", 3, true, false});
  if (v_.on()) out.push_back({Label::virial, "virial", 9, false, false});
  if (ae_.on()) out.push_back({Label::atom_energy, "atom_ener", 1, true, false});
  if (pf_.on()) out.push_back({Label::atom_pref, "atom_pref", 3, true, false});
  if (gf_.on()) out.push_back({Label::drdq, "drdq", 3 * generalized_, true, false});
  if (e_.on() && coefficients_) out.push_back({Label::atom_energy_coeff, "atom_ener_coeff", 1, true, false});
  return out;
}

void EnergyLoss::reset() {
  with_e_ = e_.on() && found(Label::energy);
  with_f_ = f_.on() && found(Label::force);
  with_v_ = v_.on() && found(Label::virial);
  with_ae_ = ae_.on() && found(Label::atom_energy);
  with_pf_ = pf_.on() && found(Label::force) && (default_pref_ || found(Label::atom_pref));
  with_gf_ = gf_.on() && found(Label::force) && found(Label::drdq);
  p_e_ = e_.at(fraction());
  p_f_ = f_.at(fraction());
  p_v_ = v_.at(fraction());
  p_ae_ = ae_.at(fraction());
  p_pf_ = pf_.at(fraction());
  p_gf_ = gf_.at(fraction());
  sum_e_ = sum_f_ = sum_v_ = sum_ae_ = sum_pf_ = sum_gf_ = Sums{};
  if (with_e_) need_atoms("energy");
  if (with_v_) need_atoms("virial");
}

Cost EnergyLoss::cost(double deviation, double delta) const {
  switch (measure_) {
    case Measure::absolute:
      return absolute(deviation);
    case Measure::huber:
      return huber(deviation, delta);
    case Measure::squares:
      break;
  }
  return squared(deviation);
}

void EnergyLoss::add(const LossFrame& frame, const LossSeeds& seeds) {
  if (seeds.atoms != nullptr) std::fill_n(seeds.atoms, frame.natoms, 0.0);
  if (seeds.force != nullptr) std::fill_n(seeds.force, 3 * static_cast<std::ptrdiff_t>(frame.natoms), 0.0);
  if (seeds.virial != nullptr) std::fill_n(seeds.virial, 9, 0.0);
  if (with_e_) add_energy(frame, seeds);
  if (with_ae_) add_atoms(frame, seeds);
  if (with_f_ || with_pf_) add_forces(frame, seeds);
  if (with_gf_) add_generalized(frame, seeds);
  if (with_v_) add_virial(frame, seeds);
}

// The energy, or sum of the atoms' energies by the coefficients of a reaction, per atom. Squares are divided by the number of
// atoms once only, unless the loss is asked to be intensive.
void EnergyLoss::add_energy(const LossFrame& frame, const LossSeeds& seeds) {
  const double* const coefficient = frame.label(Label::atom_energy_coeff);
  const auto weight = [&](int i) { return !frame.counted[i] ? 0.0 : coefficients_ && coefficient != nullptr ? coefficient[i] : 1.0; };
  double energy = 0.0;
  for (int i = 0; i < frame.natoms; ++i)
    if (frame.counted[i]) energy += weight(i) * frame.atoms[i];
  const double n = atoms(frame), deviation = (energy - *frame.label(Label::energy)) / n;
  const double scale = (measure_ == Measure::squares && !intensive_ ? n : 1.0) / frames();
  const Cost c = cost(deviation, delta_[0]);
  sum_e_.add(scale * c.value, deviation * deviation / frames());
  if (seeds.atoms == nullptr) return;
  const double seed = p_e_ * scale * c.slope / n;
  for (int i = 0; i < frame.natoms; ++i) seeds.atoms[i] += seed * weight(i);
}

void EnergyLoss::add_atoms(const LossFrame& frame, const LossSeeds& seeds) {
  const double* const label = frame.label(Label::atom_energy);
  for (int i = 0; i < frame.natoms; ++i) {
    if (!frame.counted[i]) continue;
    const double deviation = frame.atoms[i] - label[i];
    const Cost c = cost(deviation, delta_[0]);
    sum_ae_.add(c.value / all_atoms(), deviation * deviation / all_atoms());
    if (seeds.atoms != nullptr) seeds.atoms[i] += p_ae_ * c.slope / all_atoms();
  }
}

// Both terms of forces see deviations that are relative to the label if they are asked to.
void EnergyLoss::add_forces(const LossFrame& frame, const LossSeeds& seeds) {
  const double* const label = frame.label(Label::force);
  const double* const pref = frame.label(Label::atom_pref);
  const double n = 3.0 * all_atoms();
  for (int i = 0; i < frame.natoms; ++i) {
    if (!frame.counted[i]) continue;
    const double* const wanted = label + 3 * static_cast<std::ptrdiff_t>(i);
    double scale = 1.0;
    if (relative_) {
      const double size = std::sqrt(wanted[0] * wanted[0] + wanted[1] * wanted[1] + wanted[2] * wanted[2]) + *relative_;
      if (size == 0.0)
        throw invalid_input("frame ", frame.index, ", atom ", i, ": the label of the force and relative_f add up to zero; give a ",
                            "positive loss.relative_f");
      scale = 1.0 / size;
    }
    std::array<double, 3> deviation, slope{};
    for (int c = 0; c < 3; ++c) deviation[c] = scale * (frame.force[3 * static_cast<std::ptrdiff_t>(i) + c] - wanted[c]);
    if (with_f_) add_force(deviation.data(), slope.data());
    if (with_pf_)
      for (int c = 0; c < 3; ++c) {
        const double w = (pref != nullptr ? pref[3 * static_cast<std::ptrdiff_t>(i) + c] : 1.0) / n;
        const Cost one = measure_ == Measure::absolute ? absolute(deviation[c]) : squared(deviation[c]);
        sum_pf_.add(w * one.value, w * one.value);
        slope[c] += p_pf_ * w * one.slope;
      }
    if (seeds.force != nullptr)
      for (int c = 0; c < 3; ++c) seeds.force[3 * static_cast<std::ptrdiff_t>(i) + c] += scale * slope[c];
  }
}

// Of an atom: components on their own, or the length of the vector, one number in place of three.
void EnergyLoss::add_force(const double* deviation, double* slope) {
  const double n = 3.0 * all_atoms();
  const double square = deviation[0] * deviation[0] + deviation[1] * deviation[1] + deviation[2] * deviation[2];
  if (norm_) {
    const double length = std::sqrt(square);
    const Cost c = cost(length, delta_[1]);
    sum_f_.add(c.value / all_atoms(), square / n);
    if (length > 0.0)  // at zero autograd's gradient of the length is zero, as here
      for (int k = 0; k < 3; ++k) slope[k] += p_f_ * c.slope * deviation[k] / length / all_atoms();
    return;
  }
  for (int k = 0; k < 3; ++k) {
    const Cost c = cost(deviation[k], delta_[1]);
    sum_f_.add(c.value / n, deviation[k] * deviation[k] / n);
    slope[k] += p_f_ * c.slope / n;
  }
}

// Forces along generalized coordinates: the deviations projected by drdq, (natoms * 3, coordinates).
void EnergyLoss::add_generalized(const LossFrame& frame, const LossSeeds& seeds) {
  const double* const drdq = frame.label(Label::drdq);
  const double* const label = frame.label(Label::force);
  const std::ptrdiff_t rows = 3 * static_cast<std::ptrdiff_t>(frame.natoms), q = generalized_;
  std::vector<double> projected(static_cast<std::size_t>(q));
  for (std::ptrdiff_t r = 0; r < rows; ++r)
    if (frame.counted[r / 3])
      for (std::ptrdiff_t k = 0; k < q; ++k) projected[static_cast<std::size_t>(k)] += drdq[r * q + k] * (frame.force[r] - label[r]);
  const double n = frames() * static_cast<double>(q);
  for (const double g : projected) sum_gf_.add(g * g / n, g * g / n);
  if (seeds.force == nullptr) return;
  for (std::ptrdiff_t r = 0; r < rows; ++r)
    if (frame.counted[r / 3])
      for (std::ptrdiff_t k = 0; k < q; ++k) seeds.force[r] += 2.0 * p_gf_ * drdq[r * q + k] * projected[static_cast<std::size_t>(k)] / n;
}

void EnergyLoss::add_virial(const LossFrame& frame, const LossSeeds& seeds) {
  const double* const label = frame.label(Label::virial);
  const double n = atoms(frame);
  const double scale = (measure_ == Measure::squares && !intensive_ ? n : 1.0) / (9.0 * frames());
  for (int k = 0; k < 9; ++k) {
    const double deviation = (frame.virial[k] - label[k]) / n;
    const Cost c = cost(deviation, delta_[2]);
    sum_v_.add(scale * c.value, deviation * deviation / (9.0 * frames()));
    if (seeds.virial != nullptr) seeds.virial[k] += p_v_ * scale * c.slope / n;
  }
}

double EnergyLoss::value() const {
  return p_e_ * sum_e_.loss + p_f_ * sum_f_.loss + p_v_ * sum_v_.loss + p_ae_ * sum_ae_.loss + p_pf_ * sum_pf_.loss + p_gf_ * sum_gf_.loss;
}

Parts EnergyLoss::parts() const {
  Parts out{{"rmse", std::sqrt(value())}};
  const bool mae = measure_ == Measure::absolute;
  const auto show = [&](const Prefactor& prefactor, const char* name, bool with, const Sums& sums, bool absolute) {
    if (!prefactor.on()) return;
    out.emplace_back((absolute ? "mae_" : "rmse_") + std::string(name), shown_if(with, absolute ? sums.loss : std::sqrt(sums.squares)));
  };
  show(e_, "e", with_e_, sum_e_, mae);
  show(f_, "f", with_f_, sum_f_, mae);
  show(v_, "v", with_v_, sum_v_, mae);
  show(ae_, "ae", with_ae_, sum_ae_, mae);
  show(pf_, "pf", with_pf_, sum_pf_, mae);
  show(gf_, "gf", with_gf_, sum_gf_, false);
  return out;
}

}  // namespace

std::unique_ptr<Loss> energy_loss(Section& section, const LossModel& model) { return std::make_unique<EnergyLoss>(section, model); }

}  // namespace dpa2::train
