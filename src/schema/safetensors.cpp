#include "schema/safetensors.hpp"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <string_view>
#include <utility>

#include "error.hpp"
#include "schema/json.hpp"

namespace dpa2 {
namespace {

constexpr std::uint64_t max_header = std::uint64_t{32} << 20;  // bytes
constexpr std::size_t max_rank = 8;
constexpr std::size_t chunk = std::size_t{1} << 16;  // bytes converted at a time

struct Entry {
  std::string name;
  std::size_t width = 8;  // bytes of an element
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0, end = 0;  // in the data
};

template <class Word>
Word little_endian(const unsigned char* bytes) {
  Word word = 0;
  for (std::size_t k = 0; k < sizeof(Word); ++k) word |= static_cast<Word>(static_cast<Word>(bytes[k]) << (8 * k));
  return word;
}

template <class Float, class Word>
double element(const unsigned char* bytes) {
  static_assert(sizeof(Float) == sizeof(Word) && std::numeric_limits<Float>::is_iec559, "the file holds IEEE numbers");
  const Word word = little_endian<Word>(bytes);
  Float value;
  std::memcpy(&value, &word, sizeof value);
  return static_cast<double>(value);
}

/// Bytes that are read from a place: a file, or memory.
class Source {
 public:
  Source(std::string name, std::uint64_t size) : name_(std::move(name)), size_(size) {}
  Source(const Source&) = delete;
  Source& operator=(const Source&) = delete;
  virtual ~Source() = default;
  [[nodiscard]] std::uint64_t size() const { return size_; }
  [[nodiscard]] const std::string& name() const { return name_; }
  void seek(std::uint64_t position) { position_ = position; }
  void read(char* to, std::size_t bytes) {
    if (bytes > size_ - std::min(size_, position_) || !get(to, position_, bytes)) throw model_file_error("truncated file: '", name_, "'");
    position_ += bytes;
  }

 private:
  virtual bool get(char* to, std::uint64_t position, std::size_t bytes) = 0;
  std::string name_;
  std::uint64_t size_, position_ = 0;
};

std::uint64_t regular_file_size(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) throw model_file_error("cannot read '", path, "': not a readable file");
  const std::uint64_t size = std::filesystem::file_size(path, error);
  if (error) throw model_file_error("cannot read '", path, "': ", error.message());
  return size;
}

class File final : public Source {
 public:
  explicit File(const std::string& path) : Source(path, regular_file_size(path)), stream_(path, std::ios::binary) {
    if (!stream_) throw model_file_error("cannot read '", path, "': not a readable file");
  }

 private:
  bool get(char* to, std::uint64_t position, std::size_t bytes) override {
    stream_.seekg(static_cast<std::streamoff>(position));
    stream_.read(to, static_cast<std::streamsize>(bytes));
    return stream_.gcount() == static_cast<std::streamsize>(bytes);
  }
  std::ifstream stream_;
};

class Memory final : public Source {
 public:
  Memory(const void* data, std::size_t size, const std::string& name) : Source(name, size), data_(static_cast<const char*>(data)) {}

 private:
  bool get(char* to, std::uint64_t position, std::size_t bytes) override {
    if (bytes > 0) std::memcpy(to, data_ + position, bytes);
    return true;
  }
  const char* data_;
};

std::uint64_t size_number(const Json& value, const std::string& tensor) {
  if (!value.is_number_unsigned()) throw model_file_error("corrupt file: shape or offsets of the tensor '", tensor, "' are malformed");
  return value.get<std::uint64_t>();
}

Entry read_entry(const std::string& name, const Json& value, std::uint64_t nbytes) {
  const std::string tensor = printable(name);
  if (!value.is_object() || value.size() != 3 || !value.contains("dtype") || !value.contains("shape") || !value.contains("data_offsets"))
    throw model_file_error("corrupt file: the entry of the tensor '", tensor, "' is malformed");
  Entry entry;
  entry.name = name;
  const Json &dtype = value["dtype"], &shape = value["shape"], &span = value["data_offsets"];
  if (dtype != "F64" && dtype != "F32")
    throw model_file_error("corrupt file: the tensor '", tensor, "' is of dtype ", shown(dtype), ", expected F64 or F32");
  entry.width = dtype == "F64" ? 8 : 4;
  if (!shape.is_array() || shape.size() > max_rank || !span.is_array() || span.size() != 2)
    throw model_file_error("corrupt file: shape or offsets of the tensor '", tensor, "' are malformed");
  entry.begin = size_number(span[0], tensor);
  entry.end = size_number(span[1], tensor);
  if (entry.begin > entry.end || entry.end > nbytes)
    throw model_file_error("truncated or corrupt file: the tensor '", tensor, "' ends at byte ", entry.end, " of ", nbytes);
  // No product can overflow: each factor is checked against what is left of the file.
  const std::uint64_t count = (entry.end - entry.begin) / entry.width;
  std::uint64_t product = 1;
  bool empty = false, fits = true;
  for (const Json& item : shape) {
    const std::uint64_t n = size_number(item, tensor);
    if (n > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
      throw model_file_error("corrupt file: shape or offsets of the tensor '", tensor, "' are malformed");
    entry.shape.push_back(static_cast<std::int64_t>(n));
    empty = empty || n == 0;
    fits = fits && (n == 0 || product <= count / n);
    if (fits && n != 0) product *= n;
  }
  if (empty) product = 0;
  if ((!fits && !empty) || product != count || (entry.end - entry.begin) % entry.width != 0)
    throw model_file_error("corrupt file: offsets and shape of the tensor '", tensor, "' disagree");
  return entry;
}

void check_layout(std::vector<Entry>& entries, std::uint64_t nbytes) {
  std::sort(entries.begin(), entries.end(),
            [](const Entry& a, const Entry& b) { return a.begin != b.begin ? a.begin < b.begin : a.end < b.end; });
  std::uint64_t at = 0;
  for (const Entry& entry : entries) {
    if (entry.begin != at) throw model_file_error("corrupt file: its tensors overlap or leave gaps");
    at = entry.end;
  }
  if (at != nbytes) throw model_file_error("truncated or corrupt file: its tensors need ", at, " bytes, it has ", nbytes);
}

std::string read_metadata(const Json& header) {
  const auto metadata = header.find("__metadata__");
  if (metadata == header.end() || !metadata->is_object() || metadata->value("format", Json()) != "dpa2")
    throw unsupported("this safetensors file is no dpa2 model: its metadata does not say so");
  const Json version = metadata->value("format_version", Json());
  const std::string readable = std::to_string(format_version);
  if (version != readable) throw unsupported("the file has format version ", shown(version), "; this library reads '", readable, "'");
  const Json config = metadata->value("config", Json());
  if (!config.is_string()) throw model_file_error("corrupt file: its metadata holds no configuration");
  return config.get<std::string>();
}

void read_tensor(Source& file, std::uint64_t data, const Entry& entry, Tensor& tensor) {
  tensor.shape = entry.shape;
  tensor.data.resize(static_cast<std::size_t>((entry.end - entry.begin) / entry.width));
  file.seek(data + entry.begin);
  std::vector<unsigned char> bytes(std::min<std::size_t>(chunk, tensor.data.size() * entry.width));
  for (std::size_t done = 0; done < tensor.data.size();) {
    const std::size_t count = std::min(bytes.size() / entry.width, tensor.data.size() - done);
    file.read(reinterpret_cast<char*>(bytes.data()), count * entry.width);
    for (std::size_t k = 0; k < count; ++k) {
      const unsigned char* p = bytes.data() + k * entry.width;
      tensor.data[done + k] = entry.width == 8 ? element<double, std::uint64_t>(p) : element<float, std::uint32_t>(p);
    }
    done += count;
  }
}

SafetensorsFile read_from(Source& file) {
  unsigned char first[8];
  if (file.size() < sizeof first) throw model_file_error("truncated file: '", file.name(), "' has no safetensors header");
  file.read(reinterpret_cast<char*>(first), sizeof first);
  const std::string start(reinterpret_cast<const char*>(first), 4);
  if (start == "PK\x03\x04" || start == "\x89HDF")
    throw model_file_error("this is a model file of deepmd-kit (", start[0] == 'P' ? ".pt, .pth" : ".dp",
                           "), and only .safetensors is read here: make it by 'dpa2 convert ", file.name(), " model.safetensors'");
  const auto length = little_endian<std::uint64_t>(first);
  if (length > max_header || length > file.size() - sizeof first)
    throw model_file_error("corrupt file: its safetensors header claims ", length, " bytes, the file has ", file.size());
  std::string text(static_cast<std::size_t>(length), '\0');
  file.read(text.data(), text.size());

  const Json header = parse_json_object(text, "the safetensors header");
  SafetensorsFile model;
  model.config_json = read_metadata(header);
  const std::uint64_t data = sizeof first + length, nbytes = file.size() - data;
  std::vector<Entry> entries;
  for (const auto& [name, value] : header.items())
    if (name != "__metadata__") entries.push_back(read_entry(name, value, nbytes));
  check_layout(entries, nbytes);
  std::map<std::string, std::vector<std::int64_t>> shapes;
  for (const Entry& entry : entries) shapes.emplace(entry.name, entry.shape);
  check_shapes(expected_weights(parse_config(model.config_json)), shapes);
  for (const Entry& entry : entries) read_tensor(file, data, entry, model.weights[entry.name]);
  return model;
}

}  // namespace

SafetensorsFile read_safetensors(const std::string& path) {
  File file(path);
  return read_from(file);
}

SafetensorsFile read_safetensors(const void* data, std::size_t size, const std::string& name) {
  Memory memory(data, size, name);
  return read_from(memory);
}

}  // namespace dpa2
