// Rows of atoms in LAMMPS's communication.
#ifndef DPA2_LAMMPS_ROWS_H
#define DPA2_LAMMPS_ROWS_H

#include <cstddef>
#include <cstring>

namespace dpa2_lammps {

inline std::size_t at(std::ptrdiff_t i) { return static_cast<std::size_t>(i); }

/// What forward_comm and reverse_comm move at the moment: rows of `width` numbers of `size` bytes, in doubles.
struct Rows {
  char* data = nullptr;
  int width = 0, size = 0;

  int doubles() const { return (width * size + 7) / 8; }
  char* row(int i) const { return data + static_cast<std::ptrdiff_t>(i) * width * size; }
  std::size_t bytes() const { return static_cast<std::size_t>(width) * static_cast<std::size_t>(size); }

  /// Rows of `n` atoms into a buffer; the number of doubles.
  int pack(int n, const int* atoms, double* buf) const {
    for (int k = 0; k < n; k++) std::memcpy(place(buf, k), row(atoms[k]), bytes());
    return n * doubles();
  }
  /// The same of consecutive atoms.
  int pack(int n, int first, double* buf) const {
    for (int k = 0; k < n; k++) std::memcpy(place(buf, k), row(first + k), bytes());
    return n * doubles();
  }
  /// A buffer into rows of consecutive atoms.
  void unpack(int n, int first, double* buf) const {
    for (int k = 0; k < n; k++) std::memcpy(row(first + k), place(buf, k), bytes());
  }
  /// A buffer added to the rows of atoms.
  void add(int n, const int* atoms, double* buf) const {
    for (int k = 0; k < n; k++) {
      const char* from = reinterpret_cast<const char*>(place(buf, k));
      if (size == 8)
        add_row<double>(row(atoms[k]), from);
      else
        add_row<float>(row(atoms[k]), from);
    }
  }

 private:
  double* place(double* buf, int k) const { return buf + static_cast<std::ptrdiff_t>(k) * doubles(); }
  template <class T>
  void add_row(char* to, const char* from) const {
    T* t = reinterpret_cast<T*>(to);
    for (int c = 0; c < width; ++c) {
      T value;
      std::memcpy(&value, from + static_cast<std::size_t>(c) * sizeof(T), sizeof(T));
      t[c] += value;
    }
  }
};

}  // namespace dpa2_lammps

#endif
