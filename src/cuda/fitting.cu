// The fitting network around its dense products: input, hidden layers with skip and idt, atomic energies (theory 9.1, 12.2).
#include "cuda/activation.cuh"
#include "cuda/block.cuh"

using namespace dpa2;

// x (size / width rows, width) = [g1 (n, n1); tebd of the type (ntypes, ntebd); fixed (.) up to column na_at; aparam (n, naparam); fixed on]:
// fixed (width): what is the same for all atoms. g1 null: a descriptor of zeros.
extern "C" __global__ void fitting_input(long long size, int width, int n1, int ntebd, int aparam_at, int naparam, real* x, const real* g1,
                                         const real* tebd, const int* types, const real* fixed, const real* aparam) {
  const long long at = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= size) return;
  const int i = static_cast<int>(at / width), c = static_cast<int>(at % width);
  if (c < n1)
    x[at] = g1 != nullptr ? row_of(g1, i, n1)[c] : real(0);
  else if (c < n1 + ntebd)
    x[at] = g1 != nullptr ? tebd[types[i] * ntebd + c - n1] : real(0);
  else if (c >= aparam_at && c < aparam_at + naparam)
    x[at] = row_of(aparam, i, naparam)[c - aparam_at];
  else
    x[at] = fixed[c];
}

// y (size / out rows, out) = phi(z + b) idt + skip of x (rows, in); dphi = phi' idt or null, which may be z; idt or null; skip: 0 none, 1 y += x,
// 2 y += [x, x]
extern "C" __global__ void fitting_hidden(long long size, int out, int in, int skip, real* y, real* dphi, const real* z, const real* x,
                                          const real* b, const real* idt) {
  const long long at = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= size) return;
  const int c = static_cast<int>(at % out);
  real value, slope;
  activate(z[at] + b[c], value, slope);
  const real factor = idt != nullptr ? idt[c] : real(1);
  value *= factor;
  if (skip != 0) value += x[at / out * in + c % in];
  y[at] = value;
  if (dphi != nullptr) dphi[at] = slope * factor;
}

// dz (rows, out) = dy * dphi, dx (rows, in) = what the skip passes on; a thread per element of the wider of the two
extern "C" __global__ void fitting_hidden_backward(int rows, int out, int in, int skip, real* dz, real* dx, const real* dy,
                                                   const real* dphi) {
  const int width = out > in ? out : in;
  const long long t = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (t >= static_cast<long long>(rows) * width) return;
  const int i = static_cast<int>(t / width), c = static_cast<int>(t % width);
  const real* given = row_of(dy, i, out);
  if (c < out) row_of(dz, i, out)[c] = given[c] * row_of(dphi, i, out)[c];
  if (c < in) row_of(dx, i, in)[c] = skip == 0 ? real(0) : skip == 1 ? given[c] : given[c] + given[in + c];
}

// energy (n) = (y . w_out + b_out - vacuum + bias[type]) active, in double; vacuum (n) or null, bias (ntypes). With raw != 0, y . w_out +
// b_out alone. One warp per atom.
extern "C" __global__ void fitting_energy(int n, int width, int raw, double* energy, const real* y, const real* w_out, real b_out,
                                          const double* vacuum, const double* bias, const double* active, const int* types) {
  const int i = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (i >= n) return;
  real acc = 0;
  for (int c = lane; c < width; c += 32) acc += row_of(y, i, width)[c] * w_out[c];
  acc = warp_sum(acc);
  if (lane != 0) return;
  double value = acc + b_out;
  if (raw == 0) {
    if (vacuum != nullptr) value -= vacuum[i];
    value = active[i] != 0.0 ? value + bias[types[i]] : 0.0;
  }
  energy[i] = value;
}

// dy (size / width rows, width) = w_out active seed; seed (n) or null
extern "C" __global__ void fitting_energy_backward(long long size, int width, real* dy, const real* w_out, const double* active,
                                                   const double* seed) {
  const long long at = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= size) return;
  const long long i = at / width;
  dy[at] = w_out[at % width] * real(active[i] * (seed != nullptr ? seed[i] : 1.0));
}
