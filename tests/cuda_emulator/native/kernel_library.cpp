#include "kernel_library.hpp"

#include <fcntl.h>
#include <spawn.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <set>
#include <sstream>

// Given by cuda_emulator/build.py: the folder of emulation.hpp, the compiler and its flags, and a digest of all that makes a library what it
// is, but for sources.
#ifndef EMULATION_FOLDER
#error "compiled by cuda_emulator/build.py"
#endif

extern char** environ;

namespace emulated {

namespace fs = std::filesystem;

namespace {

const std::string here = EMULATION_FOLDER;

std::vector<std::string> split(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> all;
  for (std::string word; in >> word;) all.push_back(word);
  return all;
}

const std::vector<std::string> common = split(EMULATION_COMMON);

struct Digest {
  std::uint64_t a = 14695981039346656037u, b = 0x9e3779b97f4a7c15u;

  void add(const std::string& text) {
    for (const char c : text) step(static_cast<unsigned char>(c));
    step(256);
  }
  [[nodiscard]] std::string text() const {
    char out[40];
    std::snprintf(out, sizeof out, "%016llx%016llx", static_cast<unsigned long long>(a), static_cast<unsigned long long>(b));
    return out;
  }

 private:
  void step(std::uint64_t value) {
    a = (a ^ value) * 1099511628211u;
    b = (b + value) * 0xbf58476d1ce4e5b9u;
    b ^= b >> 29;
  }
};

// Runs a command; its output, both streams. Compilers stay without the sanitizers of this process.
std::pair<int, std::string> run(const std::vector<std::string>& command) {
  std::vector<char*> words, variables;
  for (const std::string& word : command) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  for (char** one = environ; *one != nullptr; ++one)
    if (std::strncmp(*one, "LD_PRELOAD=", 11) != 0) variables.push_back(*one);
  variables.push_back(nullptr);
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) throw BuildError("no pipe for " + command[0]);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
  posix_spawn_file_actions_adddup2(&actions, ends[1], 2);
  pid_t child = 0;
  const int failed = posix_spawnp(&child, words[0], &actions, nullptr, words.data(), variables.data());
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  std::string output;
  char buffer[4096];
  for (ssize_t n = 0; failed == 0 && (n = read(ends[0], buffer, sizeof buffer)) > 0;) output.append(buffer, static_cast<std::size_t>(n));
  close(ends[0]);
  if (failed != 0) throw BuildError(command[0] + " cannot be started: " + std::strerror(failed));
  int status = 0;
  waitpid(child, &status, 0);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : 128, output};
}

void must_run(const std::vector<std::string>& command) {
  const auto [status, output] = run(command);
  if (status == 0) return;
  std::string line;
  for (const std::string& word : command) line += word + " ";
  throw BuildError(line + "\n" + output.substr(0, 8000));
}

// $CXX, else c++.
const std::vector<std::string>& compiler() {
  static const std::vector<std::string> words = [] {
    const char* given = std::getenv("CXX");
    return split(given != nullptr && *given != '\0' ? given : EMULATION_COMPILER);
  }();
  return words;
}

std::vector<std::string> command(std::initializer_list<std::vector<std::string>> parts) {
  std::vector<std::string> all = compiler();
  for (const auto& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

const std::string& compiler_version() {
  static const std::string text = run(command({{"--version"}})).second;
  return text;
}

// $DPA2_EMULATION_CACHE, else a folder of the user's own below the system's temporary folder.
const fs::path& cache_folder() {
  static const fs::path folder = [] {
    const char* given = std::getenv("DPA2_EMULATION_CACHE");
    const fs::path path =
        given != nullptr && *given != '\0' ? fs::path(given) : fs::temp_directory_path() / ("dpa2-emulation-" + std::to_string(getuid()));
    std::error_code ignored;
    fs::create_directories(path.parent_path(), ignored);
    mkdir(path.c_str(), 0700);
    struct stat owner{};
    if (stat(path.c_str(), &owner) != 0 || owner.st_uid != getuid() || (given == nullptr && (owner.st_mode & 022) != 0))
      throw BuildError(path.string() + " belongs to others; set DPA2_EMULATION_CACHE to a folder of your own");
    return path;
  }();
  return folder;
}

// Everything that any source may include, for the key of the cache.
std::string shared_digest(const std::vector<std::string>& includes) {
  Digest digest;
  for (const std::string& folder : includes)
    for (const char* below : {"/cuda", "/math"}) {
      std::set<fs::path> files;
      std::error_code missing;
      for (const auto& entry : fs::directory_iterator(folder + below, missing))
        if (entry.path().extension() == ".cuh" || entry.path().extension() == ".hpp") files.insert(entry.path());
      for (const fs::path& path : files) digest.add(path.string() + "\n" + read_file(path.string()));
    }
  return digest.text();
}

// One process makes a file, others wait for it.
template <class Make>
std::string once(const fs::path& target, Make make) {
  if (fs::exists(target)) return target.string();
  const std::string lock_path = target.string() + ".lock";
  const int lock = open(lock_path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
  flock(lock, LOCK_EX);
  struct Unlock {
    int lock;
    ~Unlock() { close(lock); }
  } const unlock{lock};
  if (!fs::exists(target)) {
    const fs::path part = target.string() + ".part" + target.extension().string();
    make(part.string());
    fs::rename(part, target);
  }
  unlink(lock_path.c_str());
  return target.string();
}

std::string key(const std::vector<std::string>& parts) {
  Digest digest;
  digest.add(EMULATION_DIGEST);
  digest.add(compiler_version());
  for (const std::string& word : compiler()) digest.add(word);
  for (const std::string& part : parts) digest.add(part);
  return digest.text().substr(0, 24);
}

// The translation unit around a source. Defines may be names of standard headers, so they come after these.
std::string wrapper(const std::string& path, const std::vector<Kernel>& kernels, const Defines& defines) {
  std::ostringstream out;
  out << "#include \"emulation.hpp\"\n";
  for (const auto& [name, value] : defines) out << "#define " << name << ' ' << value << '\n';
  // Internal linkage, because shared variables of merged templates would have no guarded ends.
  out << "namespace {\n#include \"" << path << "\"\n}\nextern \"C\" {\n#define EXPORT __attribute__((visibility(\"default\")))\n";
  for (const char* edge : {"__start_cuda_shared", "__stop_cuda_shared"})
    out << "extern __attribute__((weak, visibility(\"hidden\"))) unsigned char " << edge << "[];\n";
  out << "int emulation_launch(void (*)(void**), void**, unsigned char*, unsigned char*, const unsigned*, const unsigned*, std::size_t,\n"
         "  long long, char*, std::size_t);\n";
  for (const auto& [name, bounds] : kernels)
    out << "static void call_" << name << "(void** values) { emulation::call(&" << name << ", values); }\n"
        << "EXPORT int bound_" << name << "() { const int all[] = {" << (bounds.empty() ? "1024" : bounds) << "}; return all[0]; }\n"
        << "EXPORT void signature_" << name << "(char* to, std::size_t n) {\n"
        << "  strncpy(to, emulation::signature_of(&" << name << ").c_str(), n - 1); }\n"
        << "EXPORT int launch_" << name << "(void** values, const unsigned* grid, const unsigned* block, std::size_t shared,\n"
        << "  long long seed, char* message, std::size_t n) {\n"
        << "  return emulation_launch(call_" << name << ", values, __start_cuda_shared, __stop_cuda_shared, grid, block,\n"
        << "    shared, seed, message, n); }\n";
  out << "}\n";
  return out.str();
}

// Bytes of static shared memory by kernel: variables in the section of the library, by the function that they stand in. Those of
// functions that kernels call are counted for every kernel, which is more than there is.
std::string static_shared(const std::string& library, const std::vector<Kernel>& kernels) {
  const auto [status, output] = run({"nm", "-S", "-C", library});
  if (status != 0) throw BuildError("nm " + library + "\n" + output);
  struct Variable {
    unsigned long long at, bytes;
    std::string name;
  };
  std::vector<Variable> variables;
  unsigned long long begin = 0, end = 0;
  std::istringstream lines(output);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string at, second, third;
    if (!(words >> at >> second) || at.size() != 16) continue;
    if (second.size() == 1) {
      std::string name;
      std::getline(words >> std::ws, name);
      if (name == "__start_cuda_shared") begin = std::stoull(at, nullptr, 16);
      if (name == "__stop_cuda_shared") end = std::stoull(at, nullptr, 16);
    } else if (words >> third) {
      std::string name;
      std::getline(words >> std::ws, name);
      variables.push_back({std::stoull(at, nullptr, 16), std::stoull(second, nullptr, 16), name});
    }
  }
  std::map<std::string, unsigned long long> bytes;
  for (const Variable& one : variables) {
    if (one.at < begin || one.at >= end) continue;
    bool found = false;
    for (const Kernel& kernel : kernels)
      if (one.name.find("::" + kernel.name + "(") != std::string::npos || one.name.rfind(kernel.name + "(", 0) == 0 ||
          one.name.rfind(kernel.name + "::", 0) == 0) {
        bytes[kernel.name] += one.bytes;
        found = true;
      }
    if (!found)
      for (const Kernel& kernel : kernels) bytes[kernel.name] += one.bytes;
  }
  std::string text;
  for (const Kernel& kernel : kernels) text += kernel.name + " " + std::to_string(bytes[kernel.name]) + "\n";
  return text;
}

bool is_word(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; }

std::string without_comments(const std::string& text) {
  std::string out;
  for (std::size_t k = 0; k < text.size();) {
    if (text.compare(k, 2, "//") == 0) {
      k = std::min(text.find('\n', k), text.size());
    } else if (text.compare(k, 2, "/*") == 0) {
      const std::size_t end = text.find("*/", k + 2);
      k = end == std::string::npos ? text.size() : end + 2;
    } else {
      out += text[k++];
    }
  }
  return out;
}

// What NVIDIA's compiler makes of a source: cuda_emulator/compiled.py, by the Python of $DPA2_EMULATED_PYTHON.
std::string build_compiled(const std::string& path, const Defines& defines) {
  const char* python = std::getenv("DPA2_EMULATED_PYTHON");
  std::vector<std::string> words = {python != nullptr ? python : "python3", "-m", "cuda_emulator.compiled", path};
  for (const auto& [name, value] : defines) words.push_back(name + "=" + value);
  const auto [status, output] = run(words);
  if (status != 0) throw BuildError(output);
  const std::size_t end = output.find_last_not_of('\n') + 1, before = output.rfind('\n', end - 1);
  return output.substr(before == std::string::npos ? 0 : before + 1, end - (before == std::string::npos ? 0 : before + 1));
}

}  // namespace

static std::vector<std::string> flags_of(const std::string& sanitizer) {
  std::vector<std::string> all = common;
  const char* more = sanitizer.empty()        ? EMULATION_PLAIN
                     : sanitizer == "address" ? EMULATION_ADDRESS
                     : sanitizer == "thread"  ? EMULATION_THREAD
                                              : nullptr;
  if (more == nullptr) throw BuildError("there is no sanitizer " + sanitizer);
  for (const std::string& flag : split(more)) all.push_back(flag);
  return all;
}

// Never watched by a sanitizer itself.
std::string runtime() {
  return once(cache_folder() / ("runtime-" + key({}) + ".o"), [](const std::string& part) {
    must_run(command({common,
                      {"-O2", "-fno-tree-loop-distribute-patterns", "-fno-stack-protector", "-I" + here, "-c", here + "/runtime.cpp"},
                      {"-o", part}}));
  });
}

// The option of the precompiled emulation.hpp: most of the time of a small source is this header's.
static std::vector<std::string> prepared_header(const std::vector<std::string>& flags) {
  if (compiler_version().find("clang") != std::string::npos) return {};
  const fs::path folder = cache_folder() / ("header-" + key(flags));
  mkdir(folder.c_str(), 0700);
  once(folder / "emulation.hpp.gch",
       [&](const std::string& part) { must_run(command({flags, {"-x", "c++-header", here + "/emulation.hpp", "-o", part}})); });
  return {"-I" + folder.string()};
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream all;
  all << file.rdbuf();
  return all.str();
}

std::vector<Kernel> kernels_of(const std::string& text) {
  const std::string plain = without_comments(text);
  std::vector<Kernel> found;
  std::size_t at = 0;
  const auto next_word = [&] {
    while (at < plain.size() && std::isspace(static_cast<unsigned char>(plain[at])) != 0) ++at;
    const std::size_t begin = at;
    while (at < plain.size() && is_word(plain[at])) ++at;
    return plain.substr(begin, at - begin);
  };
  for (std::size_t mark = plain.find("__global__"); mark != std::string::npos; mark = plain.find("__global__", at)) {
    at = mark + 10;
    std::string bounds, word = next_word();
    for (; word == "void" || word == "__launch_bounds__"; word = next_word()) {
      if (word == "void") continue;
      const std::size_t open = plain.find('(', at);
      int depth = 1;
      for (at = open + 1; at < plain.size() && depth > 0; ++at) depth += plain[at] == '(' ? 1 : plain[at] == ')' ? -1 : 0;
      bounds = plain.substr(open + 1, at - open - 2);
    }
    if (!word.empty() && plain.find_first_not_of(" \t\r\n", at) == plain.find('(', at)) found.push_back({word, bounds});
  }
  return found;
}

std::string keep_text(const std::string& name, const std::string& text) {
  Digest digest;
  digest.add(text);
  return once(cache_folder() / (digest.text() + "-" + name), [&](const std::string& part) { std::ofstream(part) << text; });
}

std::string build(const std::string& path, const std::vector<std::string>& includes, const Defines& defines, const std::string& sanitizer) {
  static std::mutex mutex;
  const std::lock_guard<std::mutex> lock(mutex);
  if (sanitizer == "ptx") return build_compiled(path, defines);
  const std::string text = read_file(path);
  const std::vector<Kernel> kernels = kernels_of(text);
  const std::vector<std::string> flags = flags_of(sanitizer);
  const std::string unit = wrapper(path, kernels, defines);
  std::vector<std::string> parts = flags;
  parts.insert(parts.end(), includes.begin(), includes.end());
  parts.insert(parts.end(), {text, unit, shared_digest(includes)});
  const fs::path target = cache_folder() / (fs::path(path).stem().string() + "-" + key(parts) + ".so");
  return once(target, [&](const std::string& part) {
    const std::string source = part + ".cpp";
    std::ofstream(source) << unit;
    std::vector<std::string> folders = prepared_header(flags);
    folders.push_back("-I" + here);
    for (const std::string& folder : includes) folders.push_back("-I" + folder);
    must_run(command({flags, folders, {"-shared", "-Wl,-Bsymbolic", source, runtime(), "-o", part}}));
    std::ofstream(target.string() + ".shared") << static_shared(part, kernels);
    unlink(source.c_str());
  });
}

}  // namespace emulated
