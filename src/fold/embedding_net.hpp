// The embedding networks of repinit and of the three-body block: functions of one scalar and of types (theory 4.1).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "fold/dense.hpp"
#include "fold/series.hpp"

namespace dpa2 {

/// The piecewise polynomials of a compressed model, as the file has them.
struct FoldedTable {
  Matrix nodes;         ///< (1, intervals + 1): the ends of the intervals
  Tensor coefficients;  ///< (curves, intervals, 6, channels): of the powers of (s - begin) / length of an interval
};

/// The first layer sees [s, type embeddings]: everything but s is a row of a table, one per combination of types (theory S4): neighbour
/// * ntypes + centre, or the neighbour alone where the embedding is one-sided. In strip mode the network sees s alone (one row).
struct FoldedEmbeddingNet {
  FoldedActivation act;
  std::vector<FoldedHidden> layers;    ///< of the first, `w` is the row of s (1, out) and `b` is empty
  bool typed = false;                  ///< one row, or one curve, per combination of types
  Matrix type_term;                    ///< (combinations or 1, out of the first): bias plus the types' share of the first layer
  Matrix type_skip;                    ///< (combinations or 1, in of the first): its input without s, where it has a skip
  Matrix gate;                         ///< (combinations, width): the types' network of strip mode, else empty
  std::optional<FoldedTable> table;    ///< replaces the network
  std::optional<FoldedSeries> series;  ///< of the network, where one has been made

  template <class F>
  void for_each(const std::string& at, F& f) const {
    act.for_each(at + ".activation", f);
    for (std::size_t l = 0; l < layers.size(); ++l) layers[l].for_each(at + ".layers." + std::to_string(l), f);
    f(at + ".typed", static_cast<int>(typed));
    give(f, at + ".type_term", type_term);
    give(f, at + ".type_skip", type_skip);
    give(f, at + ".gate", gate);
    if (!table) return;
    f(at + ".table.nodes", table->nodes);
    f(at + ".table.coefficients", table->coefficients);
  }
};

struct EmbeddingOptions {
  std::string block;  ///< of the names of the weights
  std::size_t nlayers;
  bool one_side;
  const std::optional<TableConfig>& table;
  int network = 0;  ///< its number among those of the block
};

/// (combinations, .) what the types of an edge bring to the network, for `tebd` (ntypes, tebd_dim), the type embedding: that of the
/// neighbour and of the centre, or of the neighbour alone.
Matrix type_pairs(const Matrix& tebd, bool one_side);

FoldedEmbeddingNet fold_embedding_net(const Config& config, RawTensors& raw, const EmbeddingOptions& options, const Matrix& tebd);

/// The adjoint of type_pairs, `+=`.
void unfold_type_pairs(const Matrix& gradient, bool one_side, Matrix& tebd_gradient);
/// The adjoint, `+=`, also into the gradient of `tebd`. The types reach the network by the rows of its first matrix that fold has
/// multiplied out, by the skip of its first layer, and by the network of strip mode.
void unfold_embedding_net(const Config& config, RawTensors& raw, const EmbeddingOptions& options, const Matrix& tebd,
                          const FoldedEmbeddingNet& gradient, Weights& to, Matrix& tebd_gradient);

/// (1, width) the network, or its table, at s for a combination of types; without the gate of strip mode.
Matrix evaluate(const FoldedEmbeddingNet& net, double s, int combination);

}  // namespace dpa2
