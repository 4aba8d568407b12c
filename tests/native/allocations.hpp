// Counts the calls of the allocator in a program and in the libraries it uses. To be included in one file of a program.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

// Sanitizers replace the C library's functions themselves: then only what C++ takes is counted.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define DPA2_SANITIZED
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define DPA2_SANITIZED
#endif
#endif

namespace check {
inline std::atomic<long> allocations{0};
}  // namespace check

#if defined(__GLIBC__) && !defined(DPA2_SANITIZED)
// In place of the C library's: everything that takes memory, in this program and in the libraries it uses, comes here.
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
void* malloc(std::size_t n) {
  ++check::allocations;
  return __libc_malloc(n);
}
void* calloc(std::size_t n, std::size_t size) {
  ++check::allocations;
  return __libc_calloc(n, size);
}
void* realloc(void* p, std::size_t n) {
  ++check::allocations;
  return __libc_realloc(p, n);
}
void* aligned_alloc(std::size_t alignment, std::size_t n) {
  ++check::allocations;
  return __libc_memalign(alignment, n);
}
int posix_memalign(void** p, std::size_t alignment, std::size_t n) {
  ++check::allocations;
  *p = __libc_memalign(alignment, n);
  return *p == nullptr ? 12 : 0;
}
}
#else
// Not inlined: compilers that see a free() where they expect the other half of new warn of it.
__attribute__((noinline)) void* operator new(std::size_t n) {
  ++check::allocations;
  if (void* p = std::malloc(n == 0 ? 1 : n)) return p;
  throw std::bad_alloc();
}
__attribute__((noinline)) void operator delete(void* p) noexcept { std::free(p); }
__attribute__((noinline)) void operator delete(void* p, std::size_t) noexcept { std::free(p); }
#endif
