// How a layer adds its updates to a channel: out = a u + sum_k r_k * U_k (theory 8.11, 12.3). A term is given as it
// comes out of a product: U = phi(t + b) with the activation, else t + b. One thread per element; absent terms are null.
#include "cuda/activation.cuh"
#include "cuda/block.cuh"

using namespace dpa2;

namespace {

/// The term's value and slope at an element of column c.
__device__ __forceinline__ void term(real t, const real* b, int active, int c, real& value, real& slope) {
  value = b != nullptr ? t + b[c] : t;
  slope = real(1);
  if (active != 0) activate(value, value, slope);
}

__device__ __forceinline__ real added(long long at, int c, const real* t, const real* r, const real* b, int active) {
  if (t == nullptr) return real(0);
  real value, slope;
  term(t[at], b, active, c, value, slope);
  return r[c] * value;
}

__device__ __forceinline__ void taken(long long at, int c, real given, real* dt, const real* t, const real* r, const real* b, int active) {
  if (dt == nullptr) return;
  real value, slope;
  term(active != 0 ? t[at] : real(0), b, active, c, value, slope);
  dt[at] = given * r[c] * slope;
}

}  // namespace

// out (size / width rows, width), which may be u
extern "C" __global__ void residual_update(long long size, int width, real* out, const real* u, real a, const real* t0, const real* r0,
                                           const real* b0, int active0, const real* t1, const real* r1, const real* b1, int active1,
                                           const real* t2, const real* r2, const real* b2, int active2, const real* t3, const real* r3,
                                           const real* b3, int active3) {
  const long long at = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= size) return;
  const int c = static_cast<int>(at % width);
  out[at] = a * u[at] + added(at, c, t0, r0, b0, active0) + added(at, c, t1, r1, b1, active1) + added(at, c, t2, r2, b2, active2) +
            added(at, c, t3, r3, b3, active3);
}

// du =, dt_k = (the gradients of the products, null: not wanted), given dout, which may be du; t_k is read where it is activated
extern "C" __global__ void residual_update_backward(long long size, int width, real* du, const real* dout, real a, real* dt0,
                                                    const real* t0, const real* r0, const real* b0, int active0, real* dt1, const real* t1,
                                                    const real* r1, const real* b1, int active1, real* dt2, const real* t2, const real* r2,
                                                    const real* b2, int active2, real* dt3, const real* t3, const real* r3, const real* b3,
                                                    int active3) {
  const long long at = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= size) return;
  const int c = static_cast<int>(at % width);
  const real given = dout[at];
  taken(at, c, given, dt0, t0, r0, b0, active0);
  taken(at, c, given, dt1, t1, r1, b1, active1);
  taken(at, c, given, dt2, t2, r2, b2, active2);
  taken(at, c, given, dt3, t3, r3, b3, active3);
  du[at] = a * given;
}
