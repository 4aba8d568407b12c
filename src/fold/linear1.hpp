// linear1 sees its inputs one after the other: here every input has a matrix of its own (theory 8.9).
#pragma once

#include <string>
#include <vector>

#include "fold/matrix.hpp"
#include "schema/features.hpp"

namespace dpa2 {

/// In the order of the columns.
enum class Linear1Input { g1, conv, grrg, drrd };

constexpr const char* name_of(Linear1Input input) {
  switch (input) {
    case Linear1Input::g1:
      return "g1";
    case Linear1Input::conv:
      return "conv";
    case Linear1Input::grrg:
      return "grrg";
    default:
      return "drrd";
  }
}

struct FoldedLinear1 {
  struct Piece {
    Linear1Input input;
    int repeat;  ///< blocks of equal width that the input consists of
    Matrix w;    ///< (width of the input, n1)
  };
  std::vector<Piece> pieces;  ///< those that the layer has, in the order of the columns
  Matrix b;                   ///< (1, n1)

  template <class F>
  void for_each(const std::string& at, F& f) const {
    for (const Piece& piece : pieces) f(at + '.' + name_of(piece.input), piece.w);
    give(f, at + ".b", b);
  }
};

/// `layer` is the prefix of the layer's weights.
FoldedLinear1 fold_linear1(const RepformerConfig& config, RawTensors& raw, const std::string& layer, const LayerFeatures& has);
/// The adjoint, `+=`. A piece that the gradient does not have is zero.
void unfold_linear1(const RepformerConfig& config, const std::string& layer, const LayerFeatures& has, const FoldedLinear1& gradient,
                    Weights& to);

}  // namespace dpa2
