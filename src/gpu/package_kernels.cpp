// Compiles the kernels of a list into the package that is installed with their sources:
//   package_kernels SOURCES LIST NVRTC PACKAGE [DEPFILE]
// A line of the list: architectures with commas between, "compute_80" for PTX and "sm_80" for machine code; the source; the names that are
// defined. No GPU and no driver are needed.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <tuple>
#include <utility>
#include <vector>

#include "error.hpp"
#include "gpu/kernel_package.hpp"
#include "gpu/nvrtc.hpp"
#include "gpu/packing.hpp"

namespace {

using namespace dpa2;
using namespace dpa2::gpu;

struct Wanted {
  std::vector<std::string> architectures;
  std::string source;
  Defines defines;
};

std::vector<Wanted> read_list(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw invalid_input("the list of kernels ", path, " cannot be read");
  std::vector<Wanted> all;
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line.front() == '#') continue;
    std::istringstream words(line);
    Wanted one;
    std::string architectures;
    words >> architectures >> one.source;
    std::istringstream parts(architectures);
    for (std::string part; std::getline(parts, part, ',');) one.architectures.push_back(part);
    for (std::string define; words >> define;) {
      const std::size_t middle = define.find('=');
      if (middle == std::string::npos) throw invalid_input(path, ": '", define, "' is no name=value");
      one.defines.emplace_back(define.substr(0, middle), define.substr(middle + 1));
    }
    if (one.source.empty()) throw invalid_input(path, ": a line without a source: ", line);
    all.push_back(std::move(one));
  }
  return all;
}

/// PTX without what only people read.
std::string without_comments(const std::string& ptx) {
  std::istringstream lines(ptx);
  std::string all;
  for (std::string line; std::getline(lines, line);)
    if (!line.empty() && line.rfind("//", 0) != 0) all += line + '\n';
  return all;
}

/// Images of one source, precision and kind are a block: they are nearly the same.
class Package {
 public:
  void add(const std::string& folder, const Wanted& wanted) {
    for (const std::string& architecture : wanted.architectures) {
      std::string image = compile_kernels(folder, wanted.source, wanted.defines, architecture);
      const bool machine_code = architecture.rfind("sm_", 0) == 0;
      if (!machine_code) image = without_comments(image.substr(0, image.find('\0')));
      const auto real = std::find_if(wanted.defines.begin(), wanted.defines.end(), [](const auto& d) { return d.first == "real"; });
      Block& block = open_[{wanted.source, real != wanted.defines.end() ? real->second : "", machine_code ? architecture : ""}];
      block.lines.push_back(text(block.bytes.size(), ' ', image.size(), ' ', architecture, ' ', described(wanted)));
      block.keys.push_back(kernel_key(folder, wanted.source, wanted.defines, architecture));
      block.bytes += image;
      ++images;
    }
  }

  /// The list, and the packed images behind it.
  std::pair<std::string, std::string> finish() const {
    std::string list, blocks;
    std::size_t count = 0;
    for (const auto& entry : open_) {
      const Block& block = entry.second;
      const std::string packed = pack(block.bytes);
      if (unpack(packed, block.bytes.size()) != block.bytes) throw internal_error("bytes are not what they were when they were packed");
      list += text("block ", blocks.size(), ' ', packed.size(), ' ', block.bytes.size(), ' ', digits(digest(packed)), '\n');
      for (std::size_t k = 0; k < block.lines.size(); ++k) list += text("image ", block.keys[k], ' ', count, ' ', block.lines[k], '\n');
      blocks += packed;
      ++count;
    }
    return {list, blocks};
  }

  std::size_t images = 0;

 private:
  struct Block {
    std::string bytes;
    std::vector<std::string> lines, keys;
  };
  static std::string described(const Wanted& wanted) {
    std::string all = wanted.source;
    for (const auto& [name, value] : wanted.defines) all += text(' ', name, '=', value);
    return all;
  }
  std::map<std::tuple<std::string, std::string, std::string>, Block> open_;
};

void write_file(const std::string& path, const std::string& content) {
  std::ofstream file(path, std::ios::binary);
  file << content;
  if (!file.flush()) throw invalid_input(path, " cannot be written");
}

void run(const std::vector<std::string>& words) {
  const std::string &folder = words[0], &list = words[1], &path = words[3];
  setenv("DPA2_NVRTC", words[2].c_str(), 1);
  Package package;
  std::set<std::string> files = {list};
  for (const Wanted& wanted : read_list(list)) {
    package.add(folder, wanted);
    for (const std::string& file : files_of(folder, wanted.source)) files.insert(folder + "/" + file);
  }
  const auto [entries, blocks] = package.finish();
  const std::string head = text("dpa2 kernels 1\ncompiler ", compiler_version(), '\n', entries);
  write_file(path, text(head, "end ", digits(digest(head)), '\n', blocks));
  std::printf("kernels of NVRTC %s: %zu images, %.2f MB\n", compiler_version().c_str(), package.images,
              static_cast<double>(head.size() + blocks.size()) / 1e6);
  if (words.size() < 5) return;
  std::string rule = path + ":";
  for (const std::string& file : files) rule += " " + file;
  write_file(words[4], rule + "\n");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5 && argc != 6) {
    std::fprintf(stderr, "usage: package_kernels SOURCES LIST NVRTC PACKAGE [DEPFILE]\n");
    return 2;
  }
  try {
    run({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "package_kernels: %s\n", error.what());
    return 1;
  }
  return 0;
}
