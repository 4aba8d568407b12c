// The neighbour lists of a frame, by the definition of neighbors/build.hpp: wrap and bin the atoms, count and collect what is within
// the cutoff, sort, cut, exclude, store; and the transposed list, for sums over the edges that end at an atom.
//
// Decisions:
// - No image points: the search walks over the bins of the reduced lattice and beyond its faces, where a bin stands for its image.
//   Any cell, however small or skewed, and any mix of periodic and open directions go through the same loop.
// - One warp per centre, four centres per block: distances, ranks and ties of a centre need no other.
// - Atomics only on integers. The order that they leave in a bin shows nowhere: the final order is that of distances, atom
//   numbers and images alone.
// - Double precision whatever `real` is: equal distances must be seen as equal.
#include "cuda/portable.cuh"
#include "math/limits.hpp"

using namespace dpa2;

namespace dpa2 {
namespace neighbors {

constexpr int image_bits = 21, image_half = 1 << 20;  // three image numbers in one word
constexpr int shift_limit = 500000000;                // largest image number that is stored, with room for sums

/// What the host knows of the lattice. geometry: rows (9), inverse (9), origin and bins per unit of the fractional coordinates
/// (3 + 3); layout: bins, reach in bins, periodic (3 each), reduced vectors in units of the box (9).
struct Lattice {
  const double* g;
  const int* l;
  __device__ double row(int a, int c) const { return g[3 * a + c]; }
  __device__ double inverse(int c, int a) const { return g[9 + 3 * c + a]; }
  __device__ double origin(int a) const { return g[18 + a]; }
  __device__ double scale(int a) const { return g[21 + a]; }
  __device__ int bins(int a) const { return l[a]; }
  __device__ int reach(int a) const { return l[3 + a]; }
  __device__ bool periodic(int a) const { return l[6 + a] != 0; }
  __device__ int transform(int a, int b) const { return l[9 + 3 * a + b]; }
};

/// A neighbour of centre i: atom j moved by m reduced lattice vectors.
struct Image {
  int j, m[3];
};

__device__ __forceinline__ long long pack(const int* m) {
  long long code = 0;
  for (int a = 0; a < 3; ++a) code = code << image_bits | static_cast<long long>(m[a] + image_half);
  return code;
}

__device__ __forceinline__ void unpack(int* m, long long code) {
  for (int a = 2; a >= 0; --a) {
    m[a] = static_cast<int>(code & ((1LL << image_bits) - 1)) - image_half;
    code >>= image_bits;
  }
}

/// d (3) = x_j + image - x_i from the wrapped atoms: the edges (i, j) and (j, i) are exact negatives. Returns |d|.
__device__ __forceinline__ double displacement(double* d, const Lattice& lattice, const double* wrapped, int i, const Image& to) {
  for (int c = 0; c < 3; ++c) {
    const double v = to.m[0] * lattice.row(0, c) + to.m[1] * lattice.row(1, c) + to.m[2] * lattice.row(2, c);
    d[c] = (wrapped[3LL * to.j + c] - wrapped[3LL * i + c]) + v;
  }
  return sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2]);
}

/// n (3): the image in units of the box, relative to the atoms as given.
__device__ __forceinline__ void image_number(int* n, const Lattice& lattice, const int* shift, int i, const Image& to) {
  for (int b = 0; b < 3; ++b) {
    int sum = 0;
    for (int a = 0; a < 3; ++a) sum += to.m[a] * lattice.transform(a, b);
    n[b] = sum - shift[3LL * to.j + b] + shift[3LL * i + b];
  }
}

__device__ __forceinline__ int floor_quotient(int a, int b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }

/// Walks over the bins around bin number `home`: visit(begin, end, m) for the atoms sorted[begin..end) moved by m. A row of bins
/// is one range as far as it lies in one cell. All lanes walk together.
template <class Visit>
__device__ __forceinline__ void walk(const Lattice& lattice, const int* first, int home, Visit visit) {
  const int nx = lattice.bins(0), ny = lattice.bins(1), nz = lattice.bins(2);
  const int hx = home % nx, hy = home / nx % ny, hz = home / nx / ny;
  int m[3];
  for (int oz = -lattice.reach(2); oz <= lattice.reach(2); ++oz) {
    m[2] = floor_quotient(hz + oz, nz);
    if (m[2] != 0 && !lattice.periodic(2)) continue;
    for (int oy = -lattice.reach(1); oy <= lattice.reach(1); ++oy) {
      m[1] = floor_quotient(hy + oy, ny);
      if (m[1] != 0 && !lattice.periodic(1)) continue;
      const int row = ((hz + oz - m[2] * nz) * ny + hy + oy - m[1] * ny) * nx;
      const int from = hx - lattice.reach(0), to = hx + lattice.reach(0);
      const int lowest = lattice.periodic(0) ? floor_quotient(from, nx) : 0;
      const int highest = lattice.periodic(0) ? floor_quotient(to, nx) : 0;
      for (m[0] = lowest; m[0] <= highest; ++m[0]) {
        const int x0 = max(from - m[0] * nx, 0), x1 = min(to - m[0] * nx, nx - 1);
        const int begin = first[row + x0], end = first[row + x1 + 1];
        if (begin < end) visit(begin, end, m);
      }
    }
  }
}

__device__ __forceinline__ int count_all(int v) {
  for (int step = 16; step > 0; step /= 2) v += __shfl_xor_sync(FULL_MASK, v, step);
  return v;
}

/// The centre of this warp, and the number of the lane.
__device__ __forceinline__ int centre_of_warp() { return blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; }
__device__ __forceinline__ int lane_number() { return threadIdx.x % 32; }

/// The candidates of one centre: k-th atom and image, distance.
struct Candidates {
  const int* j;
  const long long* code;
  __device__ Image image(int k) const {
    Image to{j[k], {0, 0, 0}};
    unpack(to.m, code[k]);
    return to;
  }
};

/// Whether candidate a comes before b where their distances are equal: by atom, then by image.
__device__ __forceinline__ bool before(const Candidates& all, const Lattice& lattice, const int* shift, int i, int a, int b) {
  const int ja = all.j[a], jb = all.j[b];
  if (ja != jb) return ja < jb;
  int na[3], nb[3];
  image_number(na, lattice, shift, i, all.image(a));
  image_number(nb, lattice, shift, i, all.image(b));
  for (int c = 0; c < 3; ++c)
    if (na[c] != nb[c]) return na[c] < nb[c];
  return false;
}

/// Leading entries of the sorted distances r (n) within rcut; equal ones stay together. The same in all lanes.
__device__ __forceinline__ int cut(const double* r, int n, double rcut, double tolerance) {
  int within = 0;
  for (int k = lane_number(); k < n; k += 32) within += r[k] <= rcut + tolerance ? 1 : 0;
  within = count_all(within);
  while (within > 0 && within < n && r[within] - r[within - 1] <= tolerance) ++within;
  return within;
}

/// The atom with the most neighbours: of equal ones the first.
__device__ __forceinline__ void note(unsigned long long* worst, int i, int count, int sel) {
  if (count > sel) atomicMax(worst, static_cast<unsigned long long>(count) << 32 | (0xffffffffu - static_cast<unsigned>(i)));
}

/// The least distance r >= 0 to a stored neighbour, and the atom: of equal ones the first. The bits of such numbers are in their order.
__device__ __forceinline__ void note_pair(unsigned long long* closest, int i, float r) {
  atomicMin(closest, static_cast<unsigned long long>(__float_as_uint(r)) << 32 | static_cast<unsigned>(i));
}

}  // namespace neighbors
}  // namespace dpa2

using namespace dpa2::neighbors;

// One thread per atom. wrapped (natoms, 3) =, shift (natoms, 3) = with wrapped = x - shift box, bin (natoms) = (-1 for types < 0),
// count (bins) +=; status (3): the first atom that is not finite or too far out, of an unknown type, or too far away.
extern "C" __global__ void __launch_bounds__(128)
    wrap_atoms(int natoms, double* wrapped, int* shift, int* bin, int* count, int* status, const double* x, const int* types, int ntypes,
               const double* geometry, const int* layout) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= natoms) return;
  const Lattice lattice{geometry, layout};
  double w[3], f[3];
  bool finite = true, near = true;
  for (int c = 0; c < 3; ++c) {
    w[c] = x[3LL * i + c];
    finite = finite && fabs(w[c]) <= largest_length;  // false for NaN
  }
  bin[i] = -1;
  if (!finite) atomicMin(status, i);
  if (types[i] >= ntypes) atomicMin(status + 1, i);
  const bool present = finite && types[i] >= 0;
  double k[3] = {0.0, 0.0, 0.0};
  if (present) {
    for (int a = 0; a < 3; ++a)
      if (lattice.periodic(a)) k[a] = floor(w[0] * lattice.inverse(0, a) + w[1] * lattice.inverse(1, a) + w[2] * lattice.inverse(2, a));
    for (int c = 0; c < 3; ++c) w[c] -= k[0] * lattice.row(0, c) + k[1] * lattice.row(1, c) + k[2] * lattice.row(2, c);
    for (int a = 0; a < 3; ++a) f[a] = w[0] * lattice.inverse(0, a) + w[1] * lattice.inverse(1, a) + w[2] * lattice.inverse(2, a);
  }
  for (int b = 0; b < 3; ++b) {
    double s = 0.0;
    for (int a = 0; a < 3; ++a) s += k[a] * lattice.transform(a, b);
    near = near && s < shift_limit && s > -shift_limit;
    shift[3LL * i + b] = near ? static_cast<int>(s) : 0;
    wrapped[3LL * i + b] = w[b];
  }
  if (!near) atomicMin(status + 2, i);
  if (!present || !near) return;
  int number = 0;
  for (int a = 2; a >= 0; --a) {
    const double q = floor((f[a] - lattice.origin(a)) * lattice.scale(a));
    const int last = lattice.bins(a) - 1;
    number = number * lattice.bins(a) + (q > last ? last : q > 0.0 ? static_cast<int>(q) : 0);
  }
  bin[i] = number;
  atomicAdd(count + number, 1);
}

// One block. start (n + 1) = sums of count before each entry; totals (2): all of them, and the largest.
extern "C" __global__ void __launch_bounds__(1024) prefix_sums(int n, int* start, long long* totals, const int* count) {
  __shared__ long long of_warp[32];
  __shared__ int largest_of_warp[32];
  constexpr int each = 4;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  long long before_chunk = 0;
  int largest = 0;
  for (int chunk = 0; chunk < n; chunk += each * blockDim.x) {
    const int at = chunk + each * threadIdx.x;
    int v[each];
    long long mine = 0;
    for (int k = 0; k < each; ++k) {
      v[k] = at + k < n ? count[at + k] : 0;
      mine += v[k];
      largest = max(largest, v[k]);
    }
    long long sum = mine;  // of this and all lower lanes
    for (int step = 1; step < 32; step *= 2) {
      const long long other = __shfl_up_sync(FULL_MASK, sum, step);
      if (lane >= step) sum += other;
    }
    if (lane == 31) of_warp[warp] = sum;
    __syncthreads();
    long long before_warp = before_chunk;
    for (int w = 0; w < warps; ++w) {
      if (w < warp) before_warp += of_warp[w];
      before_chunk += of_warp[w];
    }
    long long next = before_warp + sum - mine;
    for (int k = 0; k < each; ++k) {
      if (at + k < n) start[at + k] = static_cast<int>(next);
      next += v[k];
    }
    __syncthreads();  // before the next chunk's sums replace these
  }
  for (int step = 16; step > 0; step /= 2) largest = max(largest, __shfl_xor_sync(FULL_MASK, largest, step));
  if (lane == 0) largest_of_warp[warp] = largest;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int w = 0; w < warps; ++w) largest = max(largest, largest_of_warp[w]);
  start[n] = static_cast<int>(before_chunk);
  totals[0] = before_chunk;
  totals[1] = largest;
}

// One thread per item: items (total) = their numbers, sorted by row[item]; those of a row in any order. left (rows): how many, is used up.
// Items of row -1 are left out.
extern "C" __global__ void __launch_bounds__(128) fill_rows(int n, int* items, int* left, const int* row, const int* start) {
  const int item = blockIdx.x * blockDim.x + threadIdx.x;
  if (item >= n) return;
  const int to = row[item];
  if (to >= 0) items[start[to] + atomicSub(left + to, 1) - 1] = item;
}

// One warp per row: sorted (total) = the items of each row in ascending order.
extern "C" __global__ void __launch_bounds__(128) sort_rows(int nrows, int* sorted, const int* items, const int* start) {
  const int row = centre_of_warp();
  if (row >= nrows) return;
  const int begin = start[row], end = start[row + 1];
  for (int k = begin + lane_number(); k < end; k += 32) {
    const int item = items[k];
    int rank = begin;
    for (int other = begin; other < end; ++other) rank += items[other] < item ? 1 : 0;
    sorted[rank] = item;
  }
}

// One warp per centre: found (natoms) = neighbours and images within the radius.
extern "C" __global__ void __launch_bounds__(128, 8)
    count_neighbors(int natoms, int* found, double radius, const double* wrapped, const int* bin, const int* first, const int* sorted,
                    const double* geometry, const int* layout) {
  const int i = centre_of_warp();
  if (i >= natoms) return;
  const Lattice lattice{geometry, layout};
  int n = 0;
  if (bin[i] >= 0)
    walk(lattice, first, bin[i], [&](int begin, int end, const int* m) {
      for (int s = begin + lane_number(); s < end; s += 32) {
        const Image to{sorted[s], {m[0], m[1], m[2]}};
        double d[3];
        if (to.j == i && m[0] == 0 && m[1] == 0 && m[2] == 0) continue;
        n += displacement(d, lattice, wrapped, i, to) <= radius ? 1 : 0;
      }
    });
  n = count_all(n);
  if (lane_number() == 0) found[i] = n;
}

// One warp per centre. Rows from[i]..from[i + 1] of the scratch arrays belong to centre i: j, code, r (unsorted candidates) =, sorted
// and order (numbers of candidates) =; at the end order has those that are stored. Per centre: stored, n_three, n_repformer, pad_repinit, pad_three =.
// worst (4), coinciding (1): see note() and note_pair(); the first centre with a neighbour at distance 0. capacity: distances per centre that
// the shared memory holds, twice (unsorted and sorted); beyond it the scratch arrays do, with their sorted distances in `spare`.
extern "C" __global__ void __launch_bounds__(128)
    sort_neighbors(int natoms, int capacity, int* stored, int* n_three, int* n_repformer, int* pad_repinit, int* pad_three,
                   unsigned long long* worst, int* coinciding, int* j, long long* code, double* r, double* spare, int* sorted, int* order,
                   double radius, double tolerance, int nsel, double rep_rcut, int rep_nsel, double three_rcut, int three_nsel,
                   int use_three, int coincide, const signed char* excluded, int ntypes, const int* types, const double* wrapped,
                   const int* shift, const int* bin, const int* first, const int* atoms, const int* from, const double* geometry,
                   const int* layout) {
  DYNAMIC_SHARED(double, distances);
  const int i = centre_of_warp(), lane = lane_number();
  if (i >= natoms) return;
  const Lattice lattice{geometry, layout};
  const int base = from[i], n = from[i + 1] - base;
  const bool fits = n <= capacity;
  double* const key = fits ? distances + 2 * capacity * (threadIdx.x / 32) : r + base;
  double* const ascending = fits ? key + capacity : spare + base;
  j += base;
  code += base;
  sorted += base;
  order += base;
  const Candidates all{j, code};

  int filled = 0;
  if (n > 0)
    walk(lattice, first, bin[i], [&](int begin, int end, const int* m) {
      for (int s = begin; s < end; s += 32) {
        Image to{s + lane < end ? atoms[s + lane] : i, {m[0], m[1], m[2]}};
        const bool itself = to.j == i && m[0] == 0 && m[1] == 0 && m[2] == 0;
        double d[3];
        const double distance = displacement(d, lattice, wrapped, i, to);
        const bool hit = s + lane < end && !itself && distance <= radius;
        const unsigned hits = __ballot_sync(FULL_MASK, hit);
        if (hit) {
          const int at = filled + __popc(hits & ((1u << lane) - 1));
          j[at] = to.j;
          code[at] = pack(to.m);
          key[at] = distance;
        }
        filled += __popc(hits);
      }
    });
  __syncwarp(FULL_MASK);
  // Exactly equal distances in any order, for now.
  for (int k = lane; k < n; k += 32) {
    const double mine = key[k];
    int rank = 0;
    for (int other = 0; other < n; ++other) rank += key[other] < mine || (key[other] == mine && other < k) ? 1 : 0;
    sorted[rank] = k;
    ascending[rank] = mine;
  }
  __syncwarp(FULL_MASK);
  // Runs of distances that are equal up to rounding: by atom and image.
  for (int p = lane; p < n; p += 32) {
    int begin = p, end = p + 1;
    while (begin > 0 && ascending[begin] - ascending[begin - 1] <= tolerance) --begin;
    while (end < n && ascending[end] - ascending[end - 1] <= tolerance) ++end;
    const int k = sorted[p];
    int rank = begin;
    if (end - begin > 1)
      for (int q = begin; q < end; ++q) rank += before(all, lattice, shift, i, sorted[q], k) ? 1 : 0;
    order[rank] = k;
  }
  __syncwarp(FULL_MASK);

  const int kept = min(n, nsel);
  const int within_repformer = cut(ascending, n, rep_rcut, tolerance);
  const int within_three = use_three != 0 ? cut(ascending, n, three_rcut, tolerance) : 0;
  const int rep = min(min(within_repformer, rep_nsel), kept), three = min(min(within_three, three_nsel), kept);
  // Excluded neighbours have used up slots; now they go. What remains moves forward, never past what is still to be read.
  int used = kept, used_three = three, left = kept, left_three = three, left_rep = rep;
  if (excluded != nullptr) {
    used = used_three = left = left_three = left_rep = 0;
    const signed char* row = excluded + (n > 0 ? types[i] : 0) * ntypes;
    for (int p0 = 0; p0 < kept; p0 += 32) {
      const int p = p0 + lane, k = p < kept ? order[p] : 0;
      const int how = p < kept ? row[types[j[k]]] : 3;  // bit 0: by the model, bit 1: by the descriptor
      const unsigned in_model = __ballot_sync(FULL_MASK, (how & 1) == 0), stays = __ballot_sync(FULL_MASK, how == 0);
      const unsigned in_three = __ballot_sync(FULL_MASK, p < three), in_rep = __ballot_sync(FULL_MASK, p < rep);
      __syncwarp(FULL_MASK);
      if (how == 0) order[left + __popc(stays & ((1u << lane) - 1))] = k;
      used += __popc(in_model);
      used_three += __popc(in_model & in_three);
      left += __popc(stays);
      left_three += __popc(stays & in_three);
      left_rep += __popc(stays & in_rep);
    }
    __syncwarp(FULL_MASK);
  }
  if (lane != 0) return;
  note(worst, i, n, nsel);
  note(worst + 2, i, within_repformer, rep_nsel);
  if (use_three != 0) note(worst + 1, i, within_three, three_nsel);
  stored[i] = left;
  n_three[i] = left_three;
  n_repformer[i] = left_rep;
  pad_repinit[i] = nsel - used;
  pad_three[i] = use_three != 0 ? three_nsel - used_three : 0;
  if (left == 0) return;
  double d[3];
  const double nearest = displacement(d, lattice, wrapped, i, all.image(order[0]));
  if (coincide != 0 && nearest <= tolerance) atomicMin(coinciding, i);
  note_pair(worst + 3, i, static_cast<float>(nearest));
}

// One warp per centre: the edges start[i]..start[i + 1] from the scratch arrays of sort_neighbors. centre, neighbor, r (nedge) =,
// d (nedge, 3) =, image (nedge, 3) = unless null, incoming (natoms) += edges that end at each atom.
extern "C" __global__ void __launch_bounds__(128)
    store_edges(int natoms, int* centre, int* neighbor, double* d, double* r, int* image, int* incoming, const int* start, const int* from,
                const int* j, const long long* code, const int* order, const double* wrapped, const int* shift, const double* geometry,
                const int* layout) {
  const int i = centre_of_warp();
  if (i >= natoms) return;
  const Lattice lattice{geometry, layout};
  const Candidates all{j + from[i], code + from[i]};
  for (int e = start[i] + lane_number(); e < start[i + 1]; e += 32) {
    const Image to = all.image(order[from[i] + e - start[i]]);
    double v[3];
    r[e] = displacement(v, lattice, wrapped, i, to);
    int n[3];
    image_number(n, lattice, shift, i, to);
    for (int c = 0; c < 3; ++c) {
      d[3LL * e + c] = v[c];
      if (image != nullptr) image[3LL * e + c] = n[c];
    }
    centre[e] = i;
    neighbor[e] = to.j;
    atomicAdd(incoming + to.j, 1);
  }
}

// One warp per centre: the first edges of each centre as a list of their own, those of centre i from first[i] to first[i + 1]. edge (total) =
// their numbers in the whole list, neighbor (total) =, incoming (natoms) +=.
extern "C" __global__ void __launch_bounds__(128)
    store_prefixes(int natoms, int* edge, int* neighbor, int* incoming, const int* first, const int* start, const int* j) {
  const int i = centre_of_warp();
  if (i >= natoms) return;
  for (int e = first[i] + lane_number(); e < first[i + 1]; e += 32) {
    const int whole = start[i] + e - first[i];
    edge[e] = whole;
    neighbor[e] = j[whole];
    atomicAdd(incoming + j[whole], 1);
  }
}
