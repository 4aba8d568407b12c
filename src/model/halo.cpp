#include "model/halo.hpp"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "error.hpp"

namespace dpa2 {

namespace {

std::size_t numbers(std::size_t rows, int width) { return rows * static_cast<std::size_t>(width); }

template <class T>
T* row_of(T* rows, int row, int width) {
  return rows + static_cast<std::ptrdiff_t>(row) * width;
}

template <class T>
T* buffer(std::vector<unsigned char>& bytes, std::size_t rows, int width) {
  bytes.resize(std::max(numbers(rows, width) * sizeof(T), sizeof(T)));
  return reinterpret_cast<T*>(bytes.data());
}

template <class T>
void pack(T* to, const T* rows, const std::vector<int>& index, int width) {
  for (const int row : index) to = std::copy_n(row_of(rows, row, width), width, to);
}

}  // namespace

HaloExchange::HaloExchange(Halo halo, int nlocal, int nall) : halo_(std::move(halo)), nlocal_(nlocal), nall_(nall) {
  const auto check_local = [&](const std::vector<int>& rows, const char* name) {
    for (std::size_t k = 0; k < rows.size(); ++k)
      if (rows[k] < 0 || rows[k] >= nlocal) throw invalid_input(name, "[", k, "] is ", rows[k], ", but there are ", nlocal, " local atoms");
  };
  check_local(halo_.send, "send");
  check_local(halo_.owners, "owners");
  std::vector<char> filled(static_cast<std::size_t>(nall - nlocal), 0);
  const auto check_ghosts = [&](const std::vector<int>& rows, const char* name) {
    for (std::size_t k = 0; k < rows.size(); ++k) {
      if (rows[k] < nlocal || rows[k] >= nall)
        throw invalid_input(name, "[", k, "] is ", rows[k], ", but ghosts have the rows from ", nlocal, " to ", nall - 1);
      char& known = filled[static_cast<std::size_t>(rows[k] - nlocal)];
      if (known != 0) throw invalid_input("row ", rows[k], " is twice in the lists of ghosts");
      known = 1;
    }
  };
  check_ghosts(halo_.receive, "receive");
  check_ghosts(halo_.images, "images");
  if (const auto lost = std::find(filled.begin(), filled.end(), 0); lost != filled.end())
    throw invalid_input("row ", nlocal + (lost - filled.begin()), " is a ghost that is neither received nor an image");

  std::vector<int> counts(static_cast<std::size_t>(nlocal) + 1, 0);
  for (const std::vector<int>* rows : {&halo_.send, &halo_.owners})
    for (const int row : *rows) ++counts[static_cast<std::size_t>(row)];
  std::vector<int> next(static_cast<std::size_t>(nlocal), 0);
  int total = 0;
  for (int i = 0; i < nlocal; ++i) {
    const int count = counts[static_cast<std::size_t>(i)];
    if (count == 0) continue;
    halo_.atoms.push_back(i);
    halo_.begin.push_back(total);
    next[static_cast<std::size_t>(i)] = total;
    total += count;
  }
  halo_.begin.push_back(total);
  halo_.sources.resize(static_cast<std::size_t>(total));
  const auto enter = [&](int row, int source) { halo_.sources[static_cast<std::size_t>(next[static_cast<std::size_t>(row)]++)] = source; };
  for (std::size_t k = 0; k < halo_.send.size(); ++k) enter(halo_.send[k], static_cast<int>(k));
  for (std::size_t k = 0; k < halo_.owners.size(); ++k) enter(halo_.owners[k], ~halo_.images[k]);
}

void HaloExchange::check(int nlocal, int nall) const {
  if (nlocal != nlocal_ || nall != nall_)
    throw invalid_input("the halo is that of ", nlocal_, " atoms and ", nall_ - nlocal_, " ghosts, but there are ", nlocal, " and ",
                        nall - nlocal, ": set the halo after the atoms");
}

template <class T>
void HaloExchange::fill(T* rows, int width) {
  T* const sent = buffer<T>(sent_, halo_.send.size(), width);
  T* const received = buffer<T>(received_, halo_.receive.size(), width);
  if (!halo_.alone()) {
    pack(sent, rows, halo_.send, width);
    halo_.carrier->forward(sent, received, width, sizeof(T));
  }
  const T* from = received;
  for (const int row : halo_.receive) {
    std::copy_n(from, width, row_of(rows, row, width));
    from += width;
  }
  for (std::size_t k = 0; k < halo_.images.size(); ++k)
    std::copy_n(row_of(rows, halo_.owners[k], width), width, row_of(rows, halo_.images[k], width));
}

template <class T>
void HaloExchange::add(T* rows, int width) {
  T* const sent = buffer<T>(sent_, halo_.receive.size(), width);
  T* const received = buffer<T>(received_, halo_.send.size(), width);
  if (!halo_.alone()) {
    pack(sent, rows, halo_.receive, width);
    halo_.carrier->reverse(sent, received, width, sizeof(T));
  }
  for (std::size_t k = 0; k < halo_.atoms.size(); ++k) {
    T* const to = row_of(rows, halo_.atoms[k], width);
    for (int e = halo_.begin[k]; e < halo_.begin[k + 1]; ++e) {
      const int source = halo_.sources[static_cast<std::size_t>(e)];
      const T* const from = source >= 0 ? row_of<const T>(received, source, width) : row_of<const T>(rows, ~source, width);
      for (int c = 0; c < width; ++c) to[c] += from[c];
    }
  }
}

}  // namespace dpa2
