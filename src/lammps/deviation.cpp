#include "deviation.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>

namespace dpa2_lammps {

namespace {

// The files of this process's writers: some file systems keep locks per process, which do not part two of one process.
// `kept` is the lock that a writer of before has left behind, or -1 where one has the file.
struct Taken {
  dev_t device;
  ino_t inode;
  int kept;
};
std::vector<Taken>& taken = *new std::vector<Taken>;  // for writers that end with the process, too

bool close_to(double a, double b, double noise) { return std::fabs(a - b) <= 1e-7 * std::fabs(a) + noise; }

bool same(const Spread& a, const Spread& b, double noise) {
  return close_to(a.max, b.max, noise) && close_to(a.min, b.min, noise) && close_to(a.avg, b.avg, noise);
}

// Whether two evaluations are of one state, up to rounding.
bool same(const Row& a, const Row& b) {
  return a.step == b.step && std::equal(a.parts.begin(), a.parts.end(), b.parts.begin(), b.parts.end(),
                                        [](const Row::Part& x, const Row::Part& y) { return same(x.spread, y.spread, y.noise); });
}

}  // namespace

double force_deviation(const std::vector<const double*>& forces, double eps) {
  const double n = static_cast<double>(forces.size());
  double mean[3] = {0.0, 0.0, 0.0}, sum = 0.0, norm = 0.0;
  for (const double* f : forces)
    for (int c = 0; c < 3; ++c) mean[c] += f[c] / n;
  for (const double* f : forces)
    for (int c = 0; c < 3; ++c) sum += (f[c] - mean[c]) * (f[c] - mean[c]);
  const double deviation = std::sqrt(sum / n);
  if (eps < 0.0) return deviation;
  for (double m : mean) norm += m * m;
  return deviation / (std::sqrt(norm) + eps);
}

Spread virial_deviation(const std::vector<std::vector<double>>& virials, double eps) {
  const double n = static_cast<double>(virials.size());
  Spread s;
  double squares = 0.0;
  for (std::size_t k = 0; k < 9; ++k) {
    double mean = 0.0, sum = 0.0;
    for (const auto& v : virials) mean += v[k] / n;
    for (const auto& v : virials) sum += (v[k] - mean) * (v[k] - mean);
    double deviation = std::sqrt(sum / n);
    if (eps >= 0.0) deviation /= std::fabs(mean) + eps;
    s.max = k == 0 ? deviation : std::max(s.max, deviation);
    s.min = k == 0 ? deviation : std::min(s.min, deviation);
    squares += deviation * deviation;
  }
  s.avg = std::sqrt(squares / 9.0);
  return s;
}

Deviation::Opened Deviation::open(bool continued, bool among_others) {
  close();
  // Not O_TRUNC: the file may be another's.
  const int fd = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  struct stat about;
  if (fd < 0 || fstat(fd, &about) != 0) {
    if (fd >= 0) ::close(fd);
    return Opened::no;
  }
  regular_ = S_ISREG(about.st_mode);
  if (regular_) {
    const auto mine =
        std::find_if(taken.begin(), taken.end(), [&](const Taken& t) { return t.device == about.st_dev && t.inode == about.st_ino; });
    const bool in_use = mine != taken.end() && mine->kept < 0;
    if (mine != taken.end() && !in_use) {
      ::close(mine->kept);
      taken.erase(mine);
    }
    // File systems without locks have to do without.
    if (in_use || (flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)) {
      ::close(fd);
      return Opened::taken;
    }
  }
  out_ = fdopen(fd, "r+");
  if (out_ == nullptr) {
    ::close(fd);
    return Opened::no;
  }
  device_ = about.st_dev;
  inode_ = about.st_ino;
  if (regular_) taken.push_back({device_, inode_, -1});
  continued_ = continued;
  among_others_ = among_others;
  return Opened::yes;
}

void Deviation::close() {
  if (out_ == nullptr) return;
  if (regular_) {
    const auto mine = std::find_if(taken.begin(), taken.end(), [&](const Taken& t) { return t.device == device_ && t.inode == inode_; });
    mine->kept = among_others_ ? fcntl(fileno(out_), F_DUPFD_CLOEXEC, 0) : -1;
    if (mine->kept < 0) taken.erase(mine);
  }
  std::fclose(out_);
  out_ = nullptr;
  begun_ = false;
  last_ = final_ = {};
}

bool Deviation::begin_run() {
  if (out_ == nullptr) return true;
  if (last_.there) final_ = last_;
  last_.there = false;
  if (begun_) return true;
  begun_ = true;
  if (regular_) {
    if (!continued_ && ftruncate(fileno(out_), 0) != 0) return false;
    if (fseeko(out_, 0, SEEK_END) != 0) return false;
    if (ftello(out_) > 0) return read_last_row();
  }
  std::fprintf(out_, "#%11s", "step");
  for (const std::string& title : titles)
    for (const char* which : {"max", "min", "avg"}) std::fprintf(out_, "%19s", (std::string(which) + "_devi_" + title).c_str());
  if (atomic) std::fprintf(out_, "%19s", "atm_devi_f(N)");
  std::fputc('\n', out_);
  return std::fflush(out_) == 0;
}

// Of a file that is continued: the state that a restart starts with may be in its last row already. A row that a killed
// program has left without its end gets one.
bool Deviation::read_last_row() {
  const off_t end = ftello(out_);
  std::string tail;  // from the start of the last line that is not empty
  for (off_t place = end; place > 0;) {
    const off_t from = std::max<off_t>(0, place - 4096);
    std::string piece(static_cast<std::size_t>(place - from), '\0');
    if (fseeko(out_, from, SEEK_SET) != 0 || std::fread(&piece[0], 1, piece.size(), out_) != piece.size()) return false;
    tail = piece + tail;
    place = from;
    const std::size_t text = tail.find_last_not_of('\n');
    const std::size_t line = text == std::string::npos ? text : tail.find_last_of('\n', text);
    if (line != std::string::npos) {
      tail.erase(0, line + 1);
      break;
    }
  }
  Written w;
  w.row.parts.resize(titles.size());
  long long step = 0;
  int used = 0;
  const char* place = tail.c_str();
  w.there = std::sscanf(place, "%lld%n", &step, &used) == 1;
  for (Row::Part& part : w.row.parts) {
    Spread& s = part.spread;
    place += used;
    w.there = w.there && std::sscanf(place, "%lf %lf %lf%n", &s.max, &s.min, &s.avg, &used) == 3;
  }
  w.row.step = step;
  final_ = w;
  if (fseeko(out_, 0, SEEK_END) != 0) return false;
  if (!tail.empty() && tail.back() != '\n') std::fputc('\n', out_);
  return std::fflush(out_) == 0;
}

// Removes the last row, unless somebody else has shortened the file meanwhile.
bool Deviation::take_back() {
  last_.there = false;
  if (fseeko(out_, 0, SEEK_END) != 0) return false;
  if (ftello(out_) <= last_.place) return true;
  return ftruncate(fileno(out_), last_.place) == 0 && fseeko(out_, last_.place, SEEK_SET) == 0;
}

bool Deviation::write(const Row& row, const std::vector<double>& per_atom) {
  if (last_.there && last_.row.step == row.step && regular_) {
    if (!take_back()) return false;
  } else if (last_.there) {
    final_ = last_;
    last_.there = false;
  }
  if (final_.there && same(final_.row, row)) return true;
  if (regular_ && fseeko(out_, 0, SEEK_END) != 0) return false;
  last_.row = row;
  last_.there = true;
  last_.place = regular_ ? ftello(out_) : 0;
  std::fprintf(out_, "%12lld", static_cast<long long>(row.step));
  for (const Row::Part& part : row.parts)
    for (double x : {part.spread.max, part.spread.min, part.spread.avg}) std::fprintf(out_, " %18.10e", x);
  for (double x : per_atom) std::fprintf(out_, " %18.10e", x);
  std::fputc('\n', out_);
  return std::fflush(out_) == 0 && std::ferror(out_) == 0;
}

}  // namespace dpa2_lammps
