// Threads of a block as fibres: stacks of their own, switched by hand.
#pragma once

#include <cstddef>
#include <cstdint>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace emulation {

using Entry = void (*)();

#if defined(__x86_64__)

// Saves what the calling convention wants kept, on the stack that is left, and takes it from the stack that is entered.
asm(R"(
.text
.p2align 4
emulation_switch_stacks:
  pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
  ret
)");
extern "C" void emulation_switch_stacks(void** from, void* to) asm("emulation_switch_stacks");

struct Context {
  void* top = nullptr;

  void prepare(void* stack, std::size_t bytes, Entry entry) {
    // As after a call of `entry`: its frame begins 8 bytes below a multiple of 16. Above it the address that it would return to.
    auto** at = reinterpret_cast<std::uintptr_t**>((reinterpret_cast<std::uintptr_t>(stack) + bytes) & ~std::uintptr_t{15});
    *--at = nullptr;
    *--at = reinterpret_cast<std::uintptr_t*>(entry);
    for (int saved = 0; saved < 6; ++saved) *--at = nullptr;
    top = at;
  }
  static void change(Context& from, Context& to) { emulation_switch_stacks(&from.top, to.top); }
};

#else

struct Context {
  ucontext_t state{};

  void prepare(void* stack, std::size_t bytes, Entry entry) {
    getcontext(&state);
    state.uc_stack.ss_sp = stack;
    state.uc_stack.ss_size = bytes;
    state.uc_link = nullptr;
    makecontext(&state, entry, 0);
  }
  static void change(Context& from, Context& to) { swapcontext(&from.state, &to.state); }
};

#endif

}  // namespace emulation
