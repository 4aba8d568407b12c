// The native file: a round trip, and files made to do harm.
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>

#include "check.hpp"
#include "error.hpp"
#include "model/safetensors.hpp"
#include "sample.hpp"

namespace {

using namespace dpa2;
using sample::Content;
using sample::content;
using sample::length_prefix;

std::string path;  // of the file that the tests write

void write(const std::string& bytes) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

void write(const std::string& header, const std::string& data) { write(length_prefix(header.size()) + header + data); }

void test_round_trip() {
  const std::string text = sample::config().dump();
  const Config config = parse_config(text);
  const Weights weights = sample::weights(config);
  for (const bool single : {false, true}) {
    const Content c = content(weights, text, single);
    write(c.header.dump(), c.data);
    const SafetensorsFile file = read_safetensors(path);
    CHECK(file.config_json == text && file.weights.size() == weights.size());
    for (const auto& [name, tensor] : weights) {
      const auto found = file.weights.find(name);
      CHECK_CASE(found != file.weights.end() && found->second.shape == tensor.shape && found->second.data == tensor.data, name);
    }
    check_weights(parse_config(file.config_json), file.weights);
    write(c.header.dump() + std::string(11, ' '), c.data);  // writers pad the header with spaces
    CHECK(read_safetensors(path).weights.size() == weights.size());
  }
  // More than the reader converts at a time, a scalar and an empty tensor.
  Weights odd;
  odd["big"].shape = {3, 10007};
  for (int k = 0; k < 3 * 10007; ++k) odd["big"].data.push_back(1.0 / (k + 1));
  odd["empty"].shape = {0, 1000};
  odd["scalar"].data = {-2.5};
  const Content c = content(odd, "{}", false);
  write(c.header.dump(), c.data);
  const SafetensorsFile file = read_safetensors(path);
  CHECK(file.weights.at("big").data == odd["big"].data && file.weights.at("scalar").data == odd["scalar"].data);
  CHECK(file.weights.at("empty").data.empty() && file.weights.at("scalar").shape.empty());
}

Content two_tensors() {
  Weights weights;
  weights["a"] = {{2, 2}, {1, 2, 3, 4}};
  weights["b"] = {{3}, {5, 6, 7}};
  return content(weights, "{}", false);
}

void refuse(Status status, const char* part, const std::function<void(Content&)>& change) {
  Content c = two_tensors();
  change(c);
  write(c.header.dump(), c.data);
  CHECK_THROWS(read_safetensors(path), status, part);
}

void test_hostile() {
  const Status bad = Status::model_file, unknown = Status::unsupported;
  const Content good = two_tensors();
  const std::string header = good.header.dump();
  CHECK_THROWS(read_safetensors(path + ".absent"), bad, "cannot read");
  CHECK_THROWS(read_safetensors("."), bad, "cannot read");
  write("");
  CHECK_THROWS(read_safetensors(path), bad, "truncated");
  write("1234567");
  CHECK_THROWS(read_safetensors(path), bad, "truncated");
  write(std::string(8, '\xff') + "{}");
  CHECK_THROWS(read_safetensors(path), bad, "claims 18446744073709551615 bytes");
  write(length_prefix(3) + "{}");
  CHECK_THROWS(read_safetensors(path), bad, "claims 3 bytes");
  write(std::string("[]"), "");
  CHECK_THROWS(read_safetensors(path), bad, "not a JSON object");
  write(std::string("{\"a\": }"), "");
  CHECK_THROWS(read_safetensors(path), bad, "not valid JSON");
  write(std::string(100000, '['), "");
  CHECK_THROWS(read_safetensors(path), bad, "nested too deeply");
  write(std::string("{}"), "");
  CHECK_THROWS(read_safetensors(path), unknown, "no dpa2 model");
  for (std::size_t cut = 0; cut < 8 + header.size() + good.data.size(); ++cut) {  // truncated anywhere
    write((length_prefix(header.size()) + header + good.data).substr(0, cut));
    CHECK_THROWS(read_safetensors(path), bad, cut < 8 + header.size() ? "file" : "truncated or corrupt");
  }
  write(header, good.data + "x");
  CHECK_THROWS(read_safetensors(path), bad, "its tensors need 56 bytes, it has 57");
  std::string twice = header;
  twice.insert(1, "\"b\": {\"dtype\": \"F64\", \"shape\": [3], \"data_offsets\": [32, 56]}, ");
  write(twice, good.data);
  CHECK_THROWS(read_safetensors(path), bad, "'b' occurs twice");

  const auto entry = [](Content& c) -> Json& { return c.header["b"]; };
  refuse(unknown, "no dpa2 model", [](Content& c) { c.header["__metadata__"]["format"] = "pt"; });
  refuse(unknown, "no dpa2 model", [](Content& c) { c.header["__metadata__"] = "dpa2"; });
  refuse(unknown, "format version '2'", [](Content& c) { c.header["__metadata__"]["format_version"] = "2"; });
  refuse(unknown, "format version null", [](Content& c) { c.header["__metadata__"].erase("format_version"); });
  refuse(bad, "no configuration", [](Content& c) { c.header["__metadata__"]["config"] = Json::object(); });
  refuse(bad, "dtype 'I64'", [&](Content& c) { entry(c)["dtype"] = "I64"; });
  refuse(bad, "dtype 3", [&](Content& c) { entry(c)["dtype"] = 3; });
  refuse(bad, "'b' is malformed", [](Content& c) { c.header["b"] = Json::array(); });
  refuse(bad, "'b' is malformed", [&](Content& c) { entry(c).erase("shape"); });
  refuse(bad, "'b' is malformed", [&](Content& c) { entry(c)["more"] = 1; });
  refuse(bad, "offsets and shape of the tensor 'b' disagree", [&](Content& c) { entry(c)["shape"] = {4}; });
  refuse(bad, "offsets and shape of the tensor 'b' disagree", [&](Content& c) { entry(c)["shape"] = {0}; });
  refuse(bad, "offsets and shape of the tensor 'b' disagree", [&](Content& c) { entry(c)["dtype"] = "F32"; });
  refuse(bad, "disagree", [&](Content& c) { entry(c)["shape"] = {4294967296, 4294967296, 3}; });
  refuse(bad, "malformed", [&](Content& c) { entry(c)["shape"] = {18446744073709551615ULL}; });
  refuse(bad, "malformed", [&](Content& c) { entry(c)["shape"] = {-3}; });
  refuse(bad, "malformed", [&](Content& c) { entry(c)["shape"] = {3.0}; });
  refuse(bad, "malformed", [&](Content& c) { entry(c)["shape"] = Json(std::vector<int>(9, 1)); });
  refuse(bad, "malformed", [&](Content& c) { entry(c)["data_offsets"] = {32}; });
  refuse(bad, "malformed", [&](Content& c) { entry(c)["data_offsets"] = {"32", "56"}; });
  refuse(bad, "'b' ends at byte 64 of 56", [&](Content& c) { entry(c)["data_offsets"] = {40, 64}; });
  refuse(bad, "'b' ends at byte", [&](Content& c) { entry(c)["data_offsets"] = {18446744073709551592ULL, 18446744073709551615ULL}; });
  refuse(bad, "'b' ends at byte", [&](Content& c) { entry(c)["data_offsets"] = {56, 32}; });
  refuse(bad, "overlap", [&](Content& c) { entry(c)["data_offsets"] = {24, 48}; });
  refuse(bad, "overlap", [&](Content& c) { entry(c)["data_offsets"] = {0, 24}; });
  refuse(bad, "gaps", [&](Content& c) {
    entry(c)["data_offsets"] = {40, 64};
    c.data += std::string(8, 'x');
  });
  refuse(bad, "its tensors need 32 bytes", [](Content& c) { c.header.erase("b"); });
  // A name with control characters does not reach the terminal.
  refuse(bad, "'?[2J' is malformed", [](Content& c) { c.header["\x1b[2J"] = 1; });
}

}  // namespace

int main(int, char** argv) {
  path = argv[0] + std::string(".safetensors");
  test_round_trip();
  test_hostile();
  std::remove(path.c_str());
  return check::finish();
}
