// The interpreter's lock, given away while the core computes.
#pragma once

#include <pybind11/pybind11.h>
#include <unistd.h>

#include <exception>

namespace dpa2::python {

/// Takes the interpreter's lock back. An interpreter that ends has Python 3.13 and older end a thread that asks for it, by an
/// unwinding of the stack that no frame of C++ may stop or outlive: the thread waits for the end of the process, as Python 3.14
/// has it do.
inline void take_lock(PyThreadState* state) {
  try {
    PyEval_RestoreThread(state);
  } catch (...) {
    for (;;) pause();
  }
}

/// Runs f, which knows nothing of Python, while other threads of Python run.
template <class F>
void without_lock(F f) {
  std::exception_ptr error;
  PyThreadState* const state = PyEval_SaveThread();
  try {
    f();
  } catch (...) { error = std::current_exception(); }
  take_lock(state);
  if (error) std::rethrow_exception(error);
}

}  // namespace dpa2::python
