#include "gpu/embedding.hpp"

#include <vector>

namespace dpa2::gpu {

namespace {

/// Parts of one array, each beginning at a multiple of four numbers and with rows of such a length.
class Parts {
 public:
  /// Where the part begins, -1 where there is none.
  int add(const Matrix& m) {
    if (m.empty()) return -1;
    const auto at = static_cast<int>(all.size());
    const int width = (m.cols + 3) / 4 * 4;
    for (int r = 0; r < m.rows; ++r)
      for (int c = 0; c < width; ++c) all.push_back(c < m.cols ? m(r, c) : 0.0);
    return at;
  }
  std::vector<double> all;
};

}  // namespace

template <class T>
DeviceNetwork<T> upload_network(const FoldedEmbeddingNet& net, bool gate_switch, Loader& loader) {
  DeviceNetwork<T> out;
  out.args.typed = net.typed ? 1 : 0;
  out.args.gate = loader.upload<T>(net.gate);
  out.args.gate_switch = gate_switch ? 1 : 0;
  if (net.table) {
    const FoldedTable& table = *net.table;
    out.args.intervals = table.nodes.cols - 1;
    out.args.even = static_cast<int>(table.coefficients.shape.back());
    std::vector<double> all = table.nodes.a;
    all.insert(all.end(), table.coefficients.data.begin(), table.coefficients.data.end());
    out.args.weights = loader.upload<T>(all);
    out.defines = {{"TABLE", "1"}};
    return out;
  }
  Parts parts;
  std::vector<int> layout;
  for (std::size_t l = 0; l < net.layers.size(); ++l) {
    const FoldedHidden& layer = net.layers[l];
    for (const int number : {layer.in, layer.out, layer.skip, parts.add(layer.w), parts.add(layer.b), parts.add(layer.idt)})
      layout.push_back(number);
    int& widest = l % 2 == 0 ? out.args.even : out.args.odd;
    widest = std::max(widest, layer.out);
  }
  out.args.layers = static_cast<int>(net.layers.size());
  out.args.layout = loader.uploaded(layout);
  out.args.weights = loader.upload<T>(parts.all);
  out.args.type_term = loader.upload<T>(net.type_term);
  out.args.type_skip = loader.upload<T>(net.type_skip);
  out.defines = activation_defines(net.act);
  return out;
}

template DeviceNetwork<float> upload_network(const FoldedEmbeddingNet&, bool, Loader&);
template DeviceNetwork<double> upload_network(const FoldedEmbeddingNet&, bool, Loader&);

}  // namespace dpa2::gpu
