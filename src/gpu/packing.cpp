#include "gpu/packing.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

#include "error.hpp"

namespace dpa2::gpu {

namespace {

// What is packed is a sequence of: how many bytes follow that are new, these, how long a repetition is, and how far back it begins; 0 stands
// for the last distance. Numbers have seven bits in a byte, the lowest first, and the eighth says that more follow.
constexpr std::size_t shortest = 6;  // a repetition costs up to five bytes
constexpr int tries = 48;
constexpr int hash_bits = 17;

void put(std::string& to, std::size_t number) {
  for (; number >= 128; number >>= 7) to.push_back(static_cast<char>(number % 128 + 128));
  to.push_back(static_cast<char>(number));
}

std::size_t hash(const char* at) {
  std::uint64_t word = 0;
  std::memcpy(&word, at, shortest);
  return static_cast<std::size_t>((word * 0x9e3779b97f4a7c15u) >> (64 - hash_bits));
}

class Reader {
 public:
  explicit Reader(const std::string& from) : from_(from) {}
  [[nodiscard]] bool at_end() const { return at_ == from_.size(); }
  std::size_t number() {
    std::size_t value = 0;
    for (int shift = 0; at_ < from_.size() && shift < 63; shift += 7) {
      const auto byte = static_cast<unsigned char>(from_[at_++]);
      value |= static_cast<std::size_t>(byte % 128) << shift;
      if (byte < 128) return value;
    }
    throw model_file_error("packed bytes end too early");
  }
  const char* bytes(std::size_t count) {
    if (count > from_.size() - at_) throw model_file_error("packed bytes end too early");
    const char* const begin = from_.data() + at_;
    at_ += count;
    return begin;
  }

 private:
  const std::string& from_;
  std::size_t at_ = 0;
};

}  // namespace

std::uint64_t digest(const std::string& bytes, std::uint64_t begin) {
  for (const char byte : bytes) begin = (begin ^ static_cast<unsigned char>(byte)) * 1099511628211u;
  return begin;
}

std::string digits(std::uint64_t digest) {
  std::string found(16, '0');
  for (std::size_t k = 16; k-- > 0; digest /= 16) found[k] = "0123456789abcdef"[digest % 16];
  return found;
}

std::string pack(const std::string& bytes) {
  constexpr std::size_t none = ~std::size_t{0};
  const std::size_t n = bytes.size();
  std::vector<std::size_t> newest(std::size_t{1} << hash_bits, none), older(n, none);
  const auto remember = [&](std::size_t at) {
    if (at + shortest > n) return;
    std::size_t& head = newest[hash(bytes.data() + at)];
    older[at] = head;
    head = at;
  };
  const auto same = [&](std::size_t from, std::size_t at) {
    std::size_t length = 0;
    while (at + length < n && bytes[from + length] == bytes[at + length]) ++length;
    return length;
  };
  std::string out;
  std::size_t begin = 0, last = 0;
  for (std::size_t at = 0; at < n;) {
    std::size_t length = 0, distance = 0;
    if (at + shortest <= n) {
      // The last distance costs least, so that it goes before others that are hardly longer.
      if (last > 0 && last <= at) length = same(at - last, at), distance = last;
      if (length < shortest) length = 0;
      std::size_t from = newest[hash(bytes.data() + at)];
      for (int k = 0; k < tries && from != none; ++k, from = older[from]) {
        const std::size_t found = same(from, at);
        if (found >= shortest && found > length + (distance == last ? 2 : 0)) length = found, distance = at - from;
      }
    }
    if (length == 0) {
      remember(at++);
      continue;
    }
    put(out, at - begin);
    out.append(bytes, begin, at - begin);
    put(out, length);
    put(out, distance == last ? 0 : distance);
    last = distance;
    for (const std::size_t end = at + length; at < end; ++at) remember(at);
    begin = at;
  }
  if (begin < n) {
    put(out, n - begin);
    out.append(bytes, begin, n - begin);
  }
  return out;
}

std::string unpack(const std::string& packed, std::size_t bytes) {
  std::string out;
  Reader in(packed);
  std::size_t last = 0;
  const auto room = [&](std::size_t count) {
    if (count > bytes - out.size()) throw model_file_error("packed bytes are more than there should be");
  };
  out.reserve(bytes);
  while (!in.at_end()) {
    const std::size_t fresh = in.number();
    room(fresh);
    out.append(in.bytes(fresh), fresh);
    if (in.at_end()) break;
    const std::size_t length = in.number(), distance = in.number();
    room(length);
    if (distance != 0) last = distance;
    if (last == 0 || last > out.size()) throw model_file_error("packed bytes repeat what is not there");
    for (std::size_t k = 0, from = out.size() - last; k < length; ++k) out.push_back(out[from + k]);
  }
  if (out.size() != bytes) throw model_file_error("packed bytes are fewer than there should be");
  return out;
}

}  // namespace dpa2::gpu
