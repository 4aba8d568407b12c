// The gate to C: exceptions become status codes, and pointers are looked at before they are used. What the calls share.
#pragma once

#include <cxxabi.h>

#include <cstddef>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "dpa2.h"
#include "error.hpp"
#include "model/domain.hpp"
#include "model/halo.hpp"
#include "model/model.hpp"

struct dpa2_model {
  explicit dpa2_model(std::shared_ptr<const dpa2::Model> m);
  std::shared_ptr<const dpa2::Model> model;
  std::vector<dpa2_output> outputs;  ///< of the model, which owns what they point to
};

struct dpa2_domain {
  dpa2::Domain domain;
  std::unique_ptr<dpa2::Carrier> carrier;    ///< of the halo
  std::unique_ptr<dpa2::HaloExchange> halo;  ///< for evaluations without another exchange
};

namespace dpa2::gate {

struct Messages {
  std::string error, overflow, close_pair, clamp, warnings;  // the last: all of them, one on a line
};
Messages& messages();
dpa2_status fail(dpa2_status status, const char* what) noexcept;
dpa2_status status_of(Status status);
/// What an evaluation has to say although it succeeded becomes the thread's warnings.
void set_warnings(const Model& model, const Remarks& remarks);

template <class F>
dpa2_status guarded(F f) {
  try {
    f();
    return DPA2_OK;
  } catch (const Error& e) { return fail(status_of(e.status()), e.what()); } catch (const std::bad_alloc&) {
    return fail(DPA2_OUT_OF_MEMORY, no_memory);
  } catch (const std::length_error&) {  // what a container says to a size that no memory could hold
    return fail(DPA2_OUT_OF_MEMORY, "the arrays would be larger than any memory");
  } catch (const std::exception& e) {
    return fail(DPA2_INTERNAL, e.what());
#if defined(__GLIBCXX__)
  } catch (const abi::__forced_unwind&) {
    throw;  // a callback of the caller has ended its thread, as Python does to daemon threads at exit: no error of ours
#endif
  } catch (...) { return fail(DPA2_INTERNAL, "an exception of an unknown kind"); }
}

/// The same for what has a status: the warning of the call before is forgotten.
template <class F>
dpa2_status gate(F f) {
  Messages& m = messages();
  for (std::string* one : {&m.overflow, &m.close_pair, &m.clamp, &m.warnings}) one->clear();
  return guarded(f);
}

inline void need(const void* pointer, const char* name) {
  if (pointer == nullptr) throw invalid_input(name, " is NULL");
}

inline void need_rows(const void* pointer, int rows, const char* name) {
  if (rows > 0) need(pointer, name);
}

inline const Config& config(const dpa2_model* model) { return model->model->config(); }

/// f(model), or what stands for no answer: questions have no status, but a NULL must not end the program.
template <class R, class F>
R ask(const dpa2_model* model, R none, F f) {
  R answer = none;
  guarded([&] {
    need(model, "model");
    answer = f(*model->model);
  });
  return answer;
}

bool finite(const double* rows, std::ptrdiff_t count);

/// Throws where the model has left the range of its numbers, which `large` may have driven it to.
void require_finite(bool all_finite, const char* what, const char* large = "parameters");

/// Throws where a number of `name`, which came with the call, is none; rows (count, width) or null.
void need_finite(const double* rows, int count, int width, const char* name);

/// The parameters that the model takes, into a Structure or a DomainFrame; others are not looked at.
template <class Input>
void set_parameters(Input& input, const Config& config, const double* fparam, const double* aparam, int natoms) {
  const Parameters parameters = config.parameters();
  if (parameters.fparam > 0) input.fparam = fparam;
  if (parameters.aparam > 0) input.aparam = aparam;
  need_finite(input.fparam, 1, parameters.fparam, "fparam");
  need_finite(input.aparam, natoms, parameters.aparam, "aparam");
}

Structure structure(int natoms, const double* coords, const int* types, const double* box, const int* pbc);

/// Throws where a model of whole systems has no spins that it needs.
void need_spins(const Model& model, const double* spins);

/// Throws where a callback has returned something other than 0.
inline void require_success(int code, const char* name) {
  if (code != 0) throw Error(Status::exchange, text("the ", name, " exchange failed with code ", code));
}

/// The callbacks of a caller as the engine's exchange.
class Callbacks final : public Exchange {
 public:
  explicit Callbacks(const dpa2_exchange& exchange) : exchange_(exchange) {
    if (exchange.forward == nullptr || exchange.reverse == nullptr) throw invalid_input("a callback of the exchange is NULL");
  }
  void forward(double* rows, int width) override { call(exchange_.forward, "forward", rows, width, sizeof *rows); }
  void forward(float* rows, int width) override { call(exchange_.forward, "forward", rows, width, sizeof *rows); }
  void reverse(double* rows, int width) override { call(exchange_.reverse, "reverse", rows, width, sizeof *rows); }
  void reverse(float* rows, int width) override { call(exchange_.reverse, "reverse", rows, width, sizeof *rows); }

 private:
  void call(int (*f)(void*, void*, int, int), const char* name, void* rows, int width, std::size_t size) const {
    require_success(f(exchange_.context, rows, width, static_cast<int>(size)), name);
  }
  const dpa2_exchange& exchange_;
};

/// The callbacks for packed rows.
class PackedCallbacks final : public Carrier {
 public:
  explicit PackedCallbacks(const dpa2_halo& halo) : context_(halo.context), forward_(halo.forward), reverse_(halo.reverse) {
    if (forward_ == nullptr || reverse_ == nullptr) throw invalid_input("a callback of the halo is NULL");
  }
  void forward(const void* sent, void* received, int width, int size) override { call(forward_, "forward", sent, received, width, size); }
  void reverse(const void* sent, void* received, int width, int size) override { call(reverse_, "reverse", sent, received, width, size); }

 private:
  using Function = int (*)(void*, const void*, void*, int, int);
  void call(Function f, const char* name, const void* sent, void* received, int width, int size) const {
    require_success(f(context_, sent, received, width, size), name);
  }
  void* context_;
  Function forward_, reverse_;
};

/// f(exchange): that of the call, else that of the domain, or null.
template <class F>
void with_exchange(const dpa2_domain* domain, const dpa2_exchange* exchange, F f) {
  if (exchange == nullptr) {
    if (domain->halo) domain->halo->check(domain->domain.atoms().nlocal, domain->domain.atoms().nall);
    f(domain->halo.get());
  } else {
    Callbacks callbacks(*exchange);
    f(&callbacks);
  }
}

DomainFrame domain_frame(const dpa2_domain* domain, const dpa2_model* model, const int* types, int pad_type, int threads,
                         Exchange* exchange);

}  // namespace dpa2::gate
