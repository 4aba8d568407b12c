#include "cpu/arena.hpp"

#include <algorithm>
#include <cstdlib>
#include <new>

#include "allocate.hpp"

namespace dpa2 {

Arena::~Arena() {
  for (int i = 0; i < nchunks_; ++i) std::free(chunks_[i].base);
}

void Arena::select(int chunk) {
  chunk_ = chunk;
  base_ = chunk >= 0 ? chunks_[chunk].base : nullptr;
  bytes_ = chunk >= 0 ? chunks_[chunk].bytes : 0;
}

void Arena::next_chunk(std::size_t size) {
  int next = chunk_ + 1;
  while (next < nchunks_ && chunks_[next].bytes < size) ++next;
  if (next == nchunks_) {
    if (nchunks_ == max_chunks) throw std::bad_alloc();
    const std::size_t bytes = (std::max(size, capacity()) / huge_page + 1) * huge_page;
    char* base = static_cast<char*>(allocate(bytes));
    if (base == nullptr) throw std::bad_alloc();
    chunks_[nchunks_++] = {base, bytes};
  }
  select(next);
  used_ = 0;
}

std::size_t Arena::capacity() const {
  std::size_t bytes = 0;
  for (int i = 0; i < nchunks_; ++i) bytes += chunks_[i].bytes;
  return bytes;
}

void Arena::reset() {
  if (nchunks_ > 1) {
    const std::size_t bytes = capacity();
    for (int i = 0; i < nchunks_; ++i) std::free(chunks_[i].base);
    nchunks_ = 0;
    select(-1);
    next_chunk(bytes);
  }
  select(nchunks_ - 1);
  used_ = 0;
}

}  // namespace dpa2
