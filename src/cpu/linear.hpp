// The small dense product that every other operation is made of.
#pragma once

#include "math/dual.hpp"

namespace dpa2 {

/// C = A B (+ bias) or C += A B.
///
///   C (m, n)  row-major, row stride ldc; n a multiple of 64 bytes
///   A (m, k)  element (r, p) at A[r*ars + p*acs]; one of the two strides is 1
///   B (k, n)  in column blocks of 64 bytes: element (p, c) at B[(c/PW)*bps + p*bks + c%PW], PW = 64/sizeof(T)
///             packed weights: bks = PW, bps = k*PW; a row-major matrix: bks = its row stride, bps = PW
///   bias (n)  or null; used only when C is overwritten
///
/// The outputs may not overlap the inputs. Rows of A beyond m are never read; k = 0 gives the bias or zero.
///
/// Features of dual numbers meet weights, which are plain: either of A and B may consist of Real<T> then. Of dual numbers B is
/// row-major.
template <class T, class Isa>
struct Linear {
  template <class A, class B>
  static void run(int m, int n, int k, T* C, long ldc, const A* a, long ars, long acs, const B* b, long bks, long bps, const Real<T>* bias,
                  bool accumulate);
  /// The gradient of a matrix of weights (m, n): C += A B, of dual numbers the tangent of A B; with the features that the weights met
  /// transposed in A and the gradients of the product in B.
  static void gradient(int m, int n, int k, Real<T>* C, long ldc, const T* A, long ars, long acs, const T* B, long bks, long bps);
  /// That of a bias (n): c += the sum of k rows, of dual numbers of their tangents.
  static void bias_gradient(int n, int k, Real<T>* c, const T* B, long ldb);
  /// That of factors of the channels (n): c += the sum of k rows of A B, element by element, of dual numbers of their tangents.
  static void gain_gradient(int n, int k, Real<T>* c, const T* A, long lda, const T* B, long ldb);
};

/// Weights packed for `Linear`: B of shape (k, n) with n padded, in panels of 64 bytes.
template <class T>
struct Packed {
  const T* data = nullptr;
  int k = 0, n = 0;
};

}  // namespace dpa2
