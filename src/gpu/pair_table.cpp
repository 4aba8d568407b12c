#include "gpu/pair_table.hpp"

#include "gpu/counted.hpp"

namespace dpa2::gpu {

namespace {

constexpr int centres_of_block = cuda::pair_table_threads / 32;

}  // namespace

template <class T>
PairTable<T>::PairTable(const FoldedPairTable& table, Loader& loader)
    : energies_(loader.function("pair_table.cu", "pair_energies")),
      gradient_(loader.function("pair_table.cu", "pair_gradient")),
      grid_(table.grid),
      ntypes_(table.bias.cols),
      pieces_(loader.upload<double>(table.pieces)),
      bias_(loader.upload<double>(table.bias)) {}

template <class T>
cuda::PairTableArgs PairTable<T>::args(const Frame& frame) const {
  cuda::PairTableArgs a{};
  a.pieces = pieces_;
  a.bias = bias_;
  a.d = frame.d;
  a.r = frame.r;
  a.start = frame.master.start;
  a.j = frame.master.j;
  a.given_types = frame.given_types;
  a.types = frame.types;
  a.failed = frame.failed;
  a.rmin = grid_.rmin;
  a.step = grid_.step;
  a.rcut = grid_.rcut;
  a.nspline = grid_.nspline;
  a.ntypes = ntypes_;
  a.centres = frame.centres;
  return a;
}

template <class T>
void PairTable<T>::energies(Queue& queue, const Frame& frame, double* energy) const {
  queue.launch(energies_, blocks_of(frame.centres, centres_of_block), cuda::pair_table_threads, 0,
               cuda::PairEnergiesArgs{energy, args(frame)});
}

template <class T>
void PairTable<T>::gradient(Queue& queue, const Frame& frame, const double* seed, T* gamma) const {
  cuda::PairGradientArgs<T> a{};
  a.gamma = gamma;
  a.seed = seed;
  a.table = args(frame);
  gradient(queue, a);
}

template <class T>
void PairTable<T>::gradient(Queue& queue, cuda::PairGradientArgs<T> a) const {
  queue.launch(gradient_, blocks_of(a.table.centres, centres_of_block), cuda::pair_table_threads, 0, a);
}

template <class T>
Zbl<T>::Zbl(const FoldedPairTable& table, const FoldedShare& share, Loader& loader)
    : table_(table, loader),
      mix_(loader.function("pair_table.cu", "zbl")),
      seeds_(loader.function("pair_table.cu", "zbl_seeds")),
      rmin_(share.rmin),
      rmax_(share.rmax),
      alpha_(share.alpha),
      bias_(loader.upload<double>(share.bias)),
      counted_(upload_counted(share.counted, loader)) {}

template <class T>
typename Zbl<T>::Kept Zbl<T>::mix(Queue& queue, const Frame& frame, double* energy, bool gradient) const {
  Kept kept;
  if (gradient)
    for (double** rows : {&kept.network, &kept.pairs, &kept.distance, &kept.denominator, &kept.numerator})
      *rows = queue.take<double>("shares of a pair table", frame.centres);
  cuda::ZblArgs a{};
  a.energy = energy;
  a.network = kept.network;
  a.pairs = kept.pairs;
  a.distance = kept.distance;
  a.denominator = kept.denominator;
  a.numerator = kept.numerator;
  a.systems = frame.systems;
  a.ids = frame.ids;
  a.bias = bias_;
  a.counted = counted_;
  a.rmin = rmin_;
  a.rmax = rmax_;
  a.alpha = alpha_;
  a.table = table_.args(frame);
  a.per_frame = frame.centres / frame.frames;
  queue.launch(mix_, blocks_of(frame.centres, centres_of_block), cuda::pair_table_threads, 0, a);
  return kept;
}

template <class T>
const double* Zbl<T>::network_seeds(Queue& queue, const Frame& frame, const double* seed, const Kept& kept, double* memory) const {
  if (seed == nullptr) return kept.network;
  const cuda::ZblSeedsArgs args{memory, kept.network, seed, frame.centres, 0};
  queue.launch(seeds_, blocks_of(frame.centres, cuda::pair_table_threads), cuda::pair_table_threads, 0, args);
  return memory;
}

template <class T>
void Zbl<T>::gradient(Queue& queue, const Frame& frame, const double* seed, const Kept& kept, T* gamma) const {
  cuda::PairGradientArgs<T> a{};
  a.gamma = gamma;
  a.seed = seed;
  a.pairs = kept.pairs;
  a.distance = kept.distance;
  a.denominator = kept.denominator;
  a.numerator = kept.numerator;
  a.table = table_.args(frame);
  a.alpha = alpha_;
  a.accumulate = 1;
  table_.gradient(queue, a);
}

template class PairTable<float>;
template class PairTable<double>;
template class Zbl<float>;
template class Zbl<double>;

}  // namespace dpa2::gpu
