// The native file: a round trip, and files made to do harm.
#include <sys/stat.h>

#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>

#include "check.hpp"
#include "error.hpp"
#include "sample.hpp"
#include "schema/safetensors.hpp"

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
  // More than the reader converts at a time.
  Json wide = sample::config();
  wide["fitting_net"]["neuron"] = {101, 103};
  const Weights big = sample::weights(parse_config(wide.dump()));
  const Content c = content(big, wide.dump(), false);
  write(c.header.dump(), c.data);
  const SafetensorsFile file = read_safetensors(path);
  const std::string name = "fitting_net.filter_layers.networks.0.layers.1.matrix";
  CHECK(file.weights.at(name).data == big.at(name).data && file.weights.at(name).data.size() == 101 * 103);
}

void test_tensors_are_those_of_the_configuration() {
  const std::string text = sample::config().dump();
  const Content good = content(sample::weights(parse_config(text)), text, false);
  const auto refuse_tensors = [&](const char* part, const std::function<void(Content&)>& change) {
    Content c = good;
    change(c);
    write(c.header.dump(), c.data);
    CHECK_THROWS(read_safetensors(path), Status::model_file, part);
  };
  refuse_tensors("'out_std' has shape (1, 1, 2), expected (1, 2, 1)", [](Content& c) { c.header["out_std"]["shape"] = {1, 1, 2}; });
  refuse_tensors("'out_std' is missing", [](Content& c) {
    c.header["more"] = c.header["out_std"];
    c.header.erase("out_std");
  });
  refuse_tensors("'more' is not used", [](Content& c) {
    c.header["more"] = {{"dtype", "F64"}, {"shape", {1}}, {"data_offsets", {c.data.size(), c.data.size() + 8}}};
    c.data += std::string(8, '\0');
  });
  refuse_tensors("the configuration is incomplete", [](Content& c) { c.header["__metadata__"]["config"] = "{}"; });
  refuse_tensors("unreasonable number of weights", [](Content& c) {
    Json j = sample::config();
    j["descriptor"]["repformer"]["g1_dim"] = 1000000;
    c.header["__metadata__"]["config"] = j.dump();
  });
}

/// Headers of many small values: the work is linear in their size, and what is no header of a model ends early.
void test_large_headers() {
  const std::string more = "has more than 1000000 values";
  const auto list = [](const std::string& item, std::size_t count) {
    std::string text = "{\"x\":[";
    for (std::size_t k = 0; k < count; ++k) text += (k > 0 ? "," : "") + item;
    return text + "]}";
  };
  const std::size_t many = 1'000'001;
  for (const char* item : {"{}", "[]", "0", "null", "\"\"", "[[]]", "{\"a\":{}}"}) {
    write(list(item, many), "");
    CHECK_THROWS(read_safetensors(path), Status::model_file, more.c_str());
    write(list(item, many / 3), "");  // below the limit, but no model
    CHECK_THROWS(read_safetensors(path), Status::unsupported, "no dpa2 model");
  }
  std::string keys = "{";
  for (std::size_t k = 0; k < many; ++k) keys += (k > 0 ? ",\"" : "\"") + std::to_string(k) + "\":0";
  write(keys + "}", "");
  CHECK_THROWS(read_safetensors(path), Status::model_file, more.c_str());
  write("{\"x\": " + std::string(5'000'000, '9') + "}", "");  // a number without end
  CHECK_THROWS(read_safetensors(path), Status::model_file, "not valid JSON");
  write("{\"x\": 0." + std::string(5'000'000, '9') + "}", "");
  CHECK_THROWS(read_safetensors(path), Status::unsupported, "no dpa2 model");
  write("{\"x\": \"" + std::string(30'000'000, 'a') + "\"}", "");
  CHECK_THROWS(read_safetensors(path), Status::unsupported, "no dpa2 model");
  for (const char* part : {"[", "{\"a\":"}) {
    std::string deep;
    for (int k = 0; k < 1'000'000; ++k) deep += part;
    write(deep, "");
    CHECK_THROWS(read_safetensors(path), Status::model_file, "nested too deeply");
  }
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

void test_regular_files_only() {
  CHECK(mkfifo((path + ".pipe").c_str(), 0600) == 0);
  for (const std::string& name : {path + ".pipe", std::string("/dev/zero"), std::string("/")})
    CHECK_THROWS(read_safetensors(name), Status::model_file, "not a readable file");  // and none is waited for
  std::remove((path + ".pipe").c_str());
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
  test_tensors_are_those_of_the_configuration();
  test_large_headers();
  test_regular_files_only();
  test_hostile();
  std::remove(path.c_str());
  return check::finish();
}
