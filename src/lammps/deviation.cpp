#include "deviation.h"

#include <algorithm>
#include <cmath>

namespace dpa2_lammps {

double force_deviation(const std::vector<const double *> &forces, double eps) {
  const double n = static_cast<double>(forces.size());
  double mean[3] = {0.0, 0.0, 0.0}, sum = 0.0, norm = 0.0;
  for (const double *f : forces)
    for (int c = 0; c < 3; ++c) mean[c] += f[c] / n;
  for (const double *f : forces)
    for (int c = 0; c < 3; ++c) sum += (f[c] - mean[c]) * (f[c] - mean[c]);
  const double deviation = std::sqrt(sum / n);
  if (eps < 0.0) return deviation;
  for (double m : mean) norm += m * m;
  return deviation / (std::sqrt(norm) + eps);
}

Spread virial_deviation(const std::vector<std::vector<double>> &virials, double eps) {
  const double n = static_cast<double>(virials.size());
  Spread s;
  double squares = 0.0;
  for (std::size_t k = 0; k < 9; ++k) {
    double mean = 0.0, sum = 0.0;
    for (const auto &v : virials) mean += v[k] / n;
    for (const auto &v : virials) sum += (v[k] - mean) * (v[k] - mean);
    double deviation = std::sqrt(sum / n);
    if (eps >= 0.0) deviation /= std::fabs(mean) + eps;
    s.max = k == 0 ? deviation : std::max(s.max, deviation);
    s.min = k == 0 ? deviation : std::min(s.min, deviation);
    squares += deviation * deviation;
  }
  s.avg = std::sqrt(squares / 9.0);
  return s;
}

Deviation::~Deviation() {
  if (out_ != nullptr) std::fclose(out_);
}

bool Deviation::open() {
  if (out_ != nullptr) std::fclose(out_);
  out_ = std::fopen(file.c_str(), "w");
  if (out_ == nullptr) return false;
  std::fprintf(out_, "#%11s", "step");
  for (const char *title : {"max_devi_v", "min_devi_v", "avg_devi_v", "max_devi_f", "min_devi_f", "avg_devi_f"})
    std::fprintf(out_, "%19s", title);
  if (atomic) std::fprintf(out_, "%19s", "atm_devi_f(N)");
  std::fputc('\n', out_);
  return std::fflush(out_) == 0;
}

bool Deviation::write(std::int64_t step, const Spread &virial, const Spread &force, const std::vector<double> &per_atom) {
  std::fprintf(out_, "%12lld", static_cast<long long>(step));
  for (double x : {virial.max, virial.min, virial.avg, force.max, force.min, force.avg}) std::fprintf(out_, " %18.10e", x);
  for (double x : per_atom) std::fprintf(out_, " %18.10e", x);
  std::fputc('\n', out_);
  return std::fflush(out_) == 0 && std::ferror(out_) == 0;
}

}  // namespace dpa2_lammps
