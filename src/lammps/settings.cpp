#include "settings.h"

#include <algorithm>
#include <iterator>

#include <lammps/comm.h>
#include <lammps/error.h>
#include <lammps/utils.h>

using namespace LAMMPS_NS;

namespace dpa2_lammps {

namespace {
const char* const keywords[] = {
    "fparam", "aparam",   "fparam_from_compute", "fparam_from_fix", "aparam_from_compute", "precision", "threads", "overflow",
    "device", "gpu_aware"};
}

bool Settings::is_keyword(const std::string& word) {
  return std::find(std::begin(keywords), std::end(keywords), word) != std::end(keywords);
}

bool Settings::is_parameter(const std::string& keyword) {
  return keyword.compare(0, 6, "fparam") == 0 || keyword.compare(0, 6, "aparam") == 0;
}

const std::string& Settings::value(std::size_t& k, const std::vector<std::string>& words) const {
  if (k + 1 >= words.size()) error->all(FLERR, "{}: {} needs a value", style, words[k]);
  return words[++k];
}

double Settings::number(std::size_t& k, const std::vector<std::string>& words) const {
  return utils::numeric(FLERR, value(k, words), false, lmp);
}

std::string Settings::find_precision(const std::vector<std::string>& words, std::size_t first) const {
  std::string precision;
  for (std::size_t k = first; k < words.size(); k++)
    if (words[k] == "precision") {
      precision = k + 1 < words.size() ? words[k + 1] : "";
      if (precision != "float64" && precision != "float32") error->all(FLERR, "{}: precision must be float64 or float32", style);
    }
  return precision;
}

std::string Settings::find_device(const std::vector<std::string>& words, std::size_t first) const {
  std::string device = "cpu";
  for (std::size_t k = first; k < words.size(); k++)
    if (words[k] == "device") {
      device = k + 1 < words.size() ? words[k + 1] : "";
      if (device != "cpu" && device.compare(0, 4, "cuda") != 0)
        error->all(FLERR, "{}: device must be cpu, cuda or cuda:N with the number of a GPU, not '{}'", style, device);
    }
  return device;
}

void Settings::reset(int fparam_dim, int aparam_dim, bool on_gpu) {
  on_gpu_ = on_gpu;
  gpu_aware_ = "auto";
  threads_ = 0;
  overflow_ = "warn";
  fparam_ = aparam_ = Parameters();
  fparam_.dim = fparam_dim;
  aparam_.dim = aparam_dim;
}

int Settings::threads() const { return threads_ > 0 ? threads_ : comm->nthreads; }

// Where a keyword's parameters go: every kind has one source.
Settings::Parameters& Settings::source(const std::string& word) {
  Parameters& p = word[0] == 'f' ? fparam_ : aparam_;
  if (p.dim == 0) error->all(FLERR, "{}: {} is given, but the model has no such parameters", style, word);
  if (!p.values.empty() || !p.compute.empty() || !p.fix.empty())
    error->all(FLERR, "{}: {} comes after another source of the same parameters", style, word);
  return p;
}

bool Settings::keyword(std::size_t& k, const std::vector<std::string>& words) {
  const std::string& word = words[k];
  if (word == "fparam" || word == "aparam") {
    Parameters& p = source(word);
    const std::size_t place = k;
    for (int i = 0; i < p.dim; i++) {
      if (k + 1 >= words.size()) error->all(FLERR, "{}: {} needs a value", style, words[place]);
      p.values.push_back(number(k, words));
    }
  } else if (word == "fparam_from_compute" || word == "aparam_from_compute") {
    source(word).compute = value(k, words);
  } else if (word == "fparam_from_fix") {
    source(word).fix = value(k, words);
  } else if (word == "precision" || word == "device") {
    k++;  // read before
  } else if (word == "gpu_aware") {
    gpu_aware_ = value(k, words);
    if (gpu_aware_ != "on" && gpu_aware_ != "off" && gpu_aware_ != "auto")
      error->all(FLERR, "{}: gpu_aware must be on, off or auto, not '{}'", style, gpu_aware_);
    if (!on_gpu_) error->all(FLERR, "{}: gpu_aware is about models on a GPU: it needs device cuda", style);
  } else if (word == "threads") {
    threads_ = utils::inumeric(FLERR, value(k, words), false, lmp);
    if (threads_ < 1) error->all(FLERR, "{}: threads must be 1 or more", style);
  } else if (word == "overflow") {
    overflow_ = value(k, words);
    if (overflow_ != "warn" && overflow_ != "error" && overflow_ != "ignore")
      error->all(FLERR, "{}: overflow must be warn, error or ignore, not '{}'", style, overflow_);
  } else {
    return false;
  }
  return true;
}

}  // namespace dpa2_lammps
