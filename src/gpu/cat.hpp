// The input of linear1 as the kernels see it (theory 8.9): what is made from the edges, side by side in one row per centre. Where
// linear1 sees g1 as well, its product reads g1 itself.
#pragma once

#include "fold/linear1.hpp"

namespace dpa2::gpu {

/// Numbers in a row, and where each piece begins; -1: absent.
struct CatLayout {
  int width = 0;
  int conv = -1, grrg = -1, drrd = -1;
};

inline CatLayout cat_layout(const FoldedLinear1& linear1) {
  CatLayout layout;
  const auto place = [&](int& at, const Matrix& w) {
    at = layout.width;
    layout.width += w.rows;
  };
  for (const FoldedLinear1::Piece& piece : linear1.pieces) {
    if (piece.input == Linear1Input::conv) place(layout.conv, piece.w);
    if (piece.input == Linear1Input::grrg) place(layout.grrg, piece.w);
    if (piece.input == Linear1Input::drrd) place(layout.drrd, piece.w);
  }
  return layout;
}

}  // namespace dpa2::gpu
