#include "gpu/kernel_package.hpp"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <map>
#include <mutex>
#include <set>
#include <sstream>

#include "error.hpp"
#include "gpu/nvrtc.hpp"
#include "gpu/packing.hpp"

namespace dpa2::gpu {

namespace {

constexpr const char* first_line = "dpa2 kernels 1";

// Once for a file of sources, which are many kernels.
struct Text {
  std::vector<std::string> files;
  std::uint64_t digest = digest_of_nothing;
};

bool read_file(const std::string& path, std::string& to) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream all;
  all << file.rdbuf();
  to = all.str();
  return file.good();
}

void add_headers(const std::string& folder, const std::string& content, Text& text, std::set<std::string>& seen) {
  std::istringstream lines(content);
  for (std::string line; std::getline(lines, line);) {
    constexpr const char* begin = "#include \"";
    if (line.rfind(begin, 0) != 0) continue;
    const std::size_t from = std::char_traits<char>::length(begin), end = line.find('"', from);
    const std::string header = line.substr(from, end == std::string::npos ? end : end - from);
    std::string inner;
    if (!seen.insert(header).second || !read_file(folder + "/" + header, inner)) continue;  // the compiler will miss it
    text.files.push_back(header);
    text.digest = digest(header + "\n" + inner, text.digest);
    add_headers(folder, inner, text, seen);
  }
}

Text text_of(const std::string& folder, const std::string& source) {
  const std::string content = read_source(folder, source);
  Text text;
  text.files.push_back("cuda/" + source);
  text.digest = digest(content);
  std::set<std::string> seen;
  add_headers(folder, content, text, seen);
  return text;
}

// 0: not of that kind.
int number_after(const std::string& architecture, const std::string& kind) {
  return architecture.rfind(kind, 0) == 0 ? std::atoi(architecture.c_str() + kind.size()) : 0;
}

}  // namespace

std::string kernel_key(const std::string& folder, const std::string& source, const Defines& defines, const std::string& architecture) {
  std::uint64_t found = digest(source + "\n", text_of(folder, source).digest);
  for (const std::string& option : compile_options(defines, "")) found = digest(option + "\n", found);
  return digits(digest(architecture, found));
}

std::vector<std::string> files_of(const std::string& folder, const std::string& source) { return text_of(folder, source).files; }

std::string described(const std::string& source, const Defines& defines) {
  std::string all = source;
  for (const auto& [name, value] : defines) all += text(" -D", name, '=', value);
  return all;
}

KernelPackage::KernelPackage(std::string path) : path_(std::move(path)) {
  std::ifstream file(path_, std::ios::binary);
  const auto fail = [this](const char* what) { return model_file_error("the package of kernels ", path_, " is damaged: ", what); };
  std::string line;
  if (!std::getline(file, line)) throw model_file_error("the package of kernels ", path_, " cannot be read");
  if (line != first_line) throw model_file_error("the package of kernels ", path_, " does not begin with '", first_line, "'");
  std::uint64_t read = digest(line + "\n");
  bool ended = false;
  while (!ended && std::getline(file, line)) {
    std::istringstream words(line);
    std::string kind;
    words >> kind;
    if (kind == "compiler") {
      words >> compiler_;
    } else if (kind == "block") {
      Block block;
      words >> block.offset >> block.packed >> block.bytes >> block.digest;
      blocks_.push_back(block);
    } else if (kind == "image") {
      Entry entry;
      words >> entry.key >> entry.block >> entry.offset >> entry.bytes >> entry.architecture >> entry.source;
      if (words) {
        for (std::string define; words >> define;) {
          const std::size_t middle = std::min(define.find('='), define.size());
          entry.defines.emplace_back(define.substr(0, middle), define.substr(std::min(middle + 1, define.size())));
        }
        words.clear();
      }
      if (entry.block >= blocks_.size() || entry.offset > blocks_[entry.block].bytes ||
          entry.bytes > blocks_[entry.block].bytes - entry.offset)
        throw fail("an image is not in its block");
      entries_.push_back(std::move(entry));
    } else if (kind == "end") {
      if (line != "end " + digits(read)) throw fail("its list is not what was written");
      ended = true;
    } else {
      throw fail("its list has a line that nobody knows");
    }
    if (!words) throw fail("a line of its list is incomplete");
    read = digest(line + "\n", read);
  }
  if (!ended) throw fail("its list has no end");
  begin_ = static_cast<std::uint64_t>(file.tellg());
}

Image KernelPackage::read(const Entry& entry) const {
  const Block& block = blocks_[entry.block];
  std::ifstream file(path_, std::ios::binary);
  file.seekg(0, std::ios::end);
  const auto whole = static_cast<std::uint64_t>(std::max<std::streamoff>(file.tellg(), 0));
  // Before memory is asked for: numbers of a list whose digest is right, but of a file that has been cut off.
  if (!file || begin_ + block.offset > whole || block.packed > whole - begin_ - block.offset)
    throw model_file_error("the package of kernels ", path_, " ends too early");
  std::string packed(block.packed, '\0');
  file.seekg(static_cast<std::streamoff>(begin_ + block.offset));
  file.read(packed.data(), static_cast<std::streamsize>(packed.size()));
  if (!file || digits(digest(packed)) != block.digest)
    throw model_file_error("the package of kernels ", path_, " is damaged: ", described(entry.source, entry.defines), " for ",
                           entry.architecture, " is not what was written");
  return {entry.architecture, unpack(packed, block.bytes).substr(entry.offset, entry.bytes)};
}

std::vector<Image> KernelPackage::images(const std::string& folder, const std::string& source, const Defines& defines, int capability,
                                         std::string& why) const {
  // Machine code of the device itself, then the latest PTX that is not for newer ones.
  const Entry *exact = nullptr, *general = nullptr;
  int best = 0;
  for (const Entry& entry : entries_) {
    if (entry.source != source || entry.defines != defines) continue;
    if (number_after(entry.architecture, "sm_") == capability) exact = &entry;
    const int from = number_after(entry.architecture, "compute_");
    if (from <= capability && from > best) {
      general = &entry;
      best = from;
    }
  }
  std::vector<Image> found;
  bool stale = false;
  for (const Entry* const entry : {exact, general}) {
    if (entry == nullptr) continue;
    if (entry->key == kernel_key(folder, source, defines, entry->architecture))
      found.push_back(read(*entry));
    else
      stale = true;
  }
  if (found.empty())
    why = text("the package ", path_, stale ? " was made of other sources for " : " has no kernels of ", described(source, defines),
               stale ? "" : text(" for compute capability ", capability / 10, '.', capability % 10));
  return found;
}

FoundPackage find_package(const std::string& folder) {
  const char* given = std::getenv("DPA2_CUDA_KERNELS");
  const bool named = given != nullptr && *given != '\0';
  if (named && std::string(given) == "off") return {nullptr, "DPA2_CUDA_KERNELS is off"};
  const std::string path = named ? given : folder + "/" + KernelPackage::name;
  if (!std::ifstream(path).good())
    return {nullptr,
            named ? text("DPA2_CUDA_KERNELS names ", path, ", which cannot be read") : "this build of dpa2 brings no compiled kernels"};
  static std::mutex mutex;
  static std::map<std::string, FoundPackage> opened;
  const std::lock_guard<std::mutex> lock(mutex);
  const auto [place, is_new] = opened.try_emplace(path);
  if (is_new) {
    try {
      place->second.package = std::make_shared<const KernelPackage>(path);
    } catch (const Error& error) { place->second.why = error.what(); }
  }
  return place->second;
}

}  // namespace dpa2::gpu
