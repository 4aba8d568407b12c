// Packed bytes, and packages of kernels: which image is taken for a device, and what is refused.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <set>
#include <sstream>

#include "check.hpp"
#include "error.hpp"
#include "gpu/kernel_package.hpp"
#include "gpu/packing.hpp"

namespace {

using namespace dpa2;
using namespace dpa2::gpu;

const Defines as_float{{"real", "float"}, {"ACT", "1"}}, as_double{{"real", "double"}};

void write(const std::string& path, const std::string& content) { std::ofstream(path, std::ios::binary) << content; }

std::string read(const std::string& path) {
  std::ostringstream all;
  all << std::ifstream(path, std::ios::binary).rdbuf();
  return all.str();
}

void packed_bytes() {
  std::mt19937 random(7);
  std::string noise(5000, '\0'), text_;
  for (char& byte : noise) byte = static_cast<char>(random() % 256);
  for (int k = 0; k < 400; ++k) text_ += text("\tfma.rn.f32 \t%f", k, ", %f", random() % 90, ", %f", random() % 90, ";\n");
  for (const std::string& bytes : {std::string(), std::string("a"), std::string(100000, '\0'), noise, text_, noise + text_ + noise,
                                   text_ + "x" + text_, std::string("abcabcabcabcabcab")}) {
    const std::string packed = pack(bytes);
    CHECK(unpack(packed, bytes.size()) == bytes);
    CHECK(packed.size() <= bytes.size() + bytes.size() / 64 + 8);
    CHECK_THROWS(static_cast<void>(unpack(packed, bytes.size() + 1)), Status::model_file, "fewer");
    if (!bytes.empty()) CHECK_THROWS(static_cast<void>(unpack(packed, bytes.size() - 1)), Status::model_file, "more");
  }
  CHECK(pack(text_ + text_ + text_).size() < pack(text_).size() + 16);
  CHECK(pack(text_).size() < text_.size() / 2);

  // Anything else is refused or gives as many bytes as it should: nothing is read or written beside them.
  const std::string packed = pack(text_.substr(0, 600));
  for (std::size_t cut = 0; cut < packed.size(); ++cut)
    CHECK_THROWS(static_cast<void>(unpack(packed.substr(0, cut), 600)), Status::model_file, "packed bytes");
  int refused = 0;
  for (std::size_t at = 0; at < packed.size(); ++at)
    for (const int change : {1, 0x80, 0xff}) {
      std::string other = packed;
      other[at] = static_cast<char>(other[at] ^ change);
      try {
        CHECK(unpack(other, 600).size() == 600);
      } catch (const Error& error) {
        CHECK(error.status() == Status::model_file);
        ++refused;
      }
    }
  CHECK(refused > 100);
  CHECK(digest("dpa2") == digest("a2", digest("dp")) && digest("dpa2") != digest("dpa3") && digits(10) == "000000000000000a");
}

struct Made {
  std::string architecture;
  Defines defines;
  std::string bytes;
};

/// A package of cuda/one.cu, as package_kernels.cpp writes it, in one block.
std::string package_of(const std::string& folder, const std::vector<Made>& images) {
  std::string all, lines;
  for (const Made& image : images) {
    lines += text("image ", kernel_key(folder, "one.cu", image.defines, image.architecture), " 0 ", all.size(), ' ', image.bytes.size(),
                  ' ', image.architecture, " one.cu");
    for (const auto& [name, value] : image.defines) lines += text(' ', name, '=', value);
    lines += '\n';
    all += image.bytes;
  }
  const std::string packed = pack(all);
  const std::string head =
      text("dpa2 kernels 1\ncompiler 12.0\nblock 0 ", packed.size(), ' ', all.size(), ' ', digits(digest(packed)), '\n', lines);
  return text(head, "end ", digits(digest(head)), '\n', packed);
}

std::string taken(const KernelPackage& package, const std::string& folder, const Defines& defines, int capability, std::string& why) {
  std::string all;
  for (const Image& image : package.images(folder, "one.cu", defines, capability, why)) all += image.architecture + "=" + image.bytes + " ";
  return all;
}

void packages(const std::string& folder) {
  std::filesystem::create_directories(folder + "/cuda");
  std::filesystem::create_directories(folder + "/math");
  const std::string header = folder + "/math/inner.hpp", path = folder + "/some.bin";
  write(folder + "/cuda/one.cu", "#include \"cuda/outer.cuh\"\n#include <none>\n#include \"math/inner.hpp\"\nkernel\n");
  write(folder + "/cuda/outer.cuh", "#include \"math/inner.hpp\"\n");
  write(header, "inner\n");
  CHECK(files_of(folder, "one.cu") == (std::vector<std::string>{"cuda/one.cu", "cuda/outer.cuh", "math/inner.hpp"}));

  // a key for each source, text of anything that is included, name, value, architecture
  std::set<std::string> keys;
  write(folder + "/cuda/two.cu", read(folder + "/cuda/one.cu"));
  for (const char* source : {"one.cu", "two.cu"})
    for (const Defines& defines :
         {as_float, as_double, Defines{{"real", "float"}, {"ACT", "2"}}, Defines{{"ACT", "1"}, {"real", "float"}}, Defines{}})
      for (const char* architecture : {"sm_80", "compute_80", "sm_8"}) keys.insert(kernel_key(folder, source, defines, architecture));
  CHECK(keys.size() == 30);
  const std::string before = kernel_key(folder, "one.cu", as_float, "sm_80");
  write(header, "inner \n");
  CHECK(kernel_key(folder, "one.cu", as_float, "sm_80") != before);
  write(header, "inner\n");
  CHECK(kernel_key(folder, "one.cu", as_float, "sm_80") == before);
  CHECK_THROWS(static_cast<void>(kernel_key(folder, "three.cu", as_float, "sm_80")), Status::invalid_input, "three.cu cannot be read");

  const std::string content = package_of(folder, {{"compute_75", as_float, "P75"},
                                                  {"compute_80", as_float, "P80"},
                                                  {"compute_90", as_float, "P90"},
                                                  {"sm_80", as_float, "C80"},
                                                  {"sm_90", as_float, "C90"},
                                                  {"compute_80", as_double, "D80"}});
  write(path, content);
  const KernelPackage package(path);
  CHECK(package.compiler() == "12.0" && package.entries().size() == 6);
  std::string why;
  const std::vector<std::pair<int, std::string>> expected{{75, "compute_75=P75 "},           {80, "sm_80=C80 compute_80=P80 "},
                                                          {86, "compute_80=P80 "},           {89, "compute_80=P80 "},
                                                          {90, "sm_90=C90 compute_90=P90 "}, {120, "compute_90=P90 "}};
  for (const auto& [capability, images] : expected) CHECK(taken(package, folder, as_float, capability, why) == images);
  CHECK(taken(package, folder, as_double, 90, why) == "compute_80=D80 " && why.empty());
  CHECK(taken(package, folder, as_double, 75, why).empty() &&
        why.find("has no kernels of one.cu -Dreal=double for compute capability 7.5") != std::string::npos);
  CHECK(taken(package, folder, {{"real", "float"}}, 80, why).empty() && why.find("has no kernels") != std::string::npos);
  write(header, "another\n");
  CHECK(taken(package, folder, as_float, 80, why).empty() &&
        why.find("was made of other sources for one.cu -Dreal=float -DACT=1") != std::string::npos);
  write(header, "inner\n");

  // Damage: in front of the images nothing opens, in them nothing is read; a file that is cut off neither.
  const std::size_t begin = content.find('\n', content.find("\nend ") + 1) + 1;
  for (std::size_t at = 0; at < content.size(); ++at) {
    std::string other = content;
    other[at] = static_cast<char>(other[at] ^ 1);
    write(path, other);
    if (at < begin) {
      CHECK_THROWS(KernelPackage{path}, Status::model_file, "package of kernels");
    } else {
      const KernelPackage damaged(path);
      CHECK_THROWS(static_cast<void>(taken(damaged, folder, as_float, 80, why)), Status::model_file, "is damaged");
    }
  }
  for (std::size_t cut = 0; cut < content.size(); ++cut) {
    write(path, content.substr(0, cut));
    CHECK_THROWS(static_cast<void>(taken(KernelPackage(path), folder, as_float, 80, why)), Status::model_file, "package of kernels");
  }
  CHECK_THROWS(KernelPackage(folder + "/none.bin"), Status::model_file, "cannot be read");

  // where it is looked for
  unsetenv("DPA2_CUDA_KERNELS");
  FoundPackage found = find_package(folder);
  CHECK(found.package == nullptr && found.why == "this build of dpa2 brings no compiled kernels");
  write(folder + "/kernels.bin", content);
  CHECK(find_package(folder).package != nullptr);
  setenv("DPA2_CUDA_KERNELS", "off", 1);
  CHECK(find_package(folder).package == nullptr && find_package(folder).why == "DPA2_CUDA_KERNELS is off");
  setenv("DPA2_CUDA_KERNELS", "/nowhere/kernels.bin", 1);
  CHECK(find_package(folder).package == nullptr &&
        find_package(folder).why.find("/nowhere/kernels.bin, which cannot be read") != std::string::npos);
  write(path, content.substr(0, 40));
  setenv("DPA2_CUDA_KERNELS", path.c_str(), 1);
  CHECK(find_package(folder).package == nullptr && find_package(folder).why.find("is damaged") != std::string::npos);
}

}  // namespace

int main() {
  packed_bytes();
  const std::string folder = (std::filesystem::temp_directory_path() / text("dpa2_kernel_package_", std::random_device{}())).string();
  packages(folder);
  std::filesystem::remove_all(folder);
  return check::finish();
}
