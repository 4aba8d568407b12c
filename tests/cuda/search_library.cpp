// The host code of the search as a library for Python, which gives it memory and launches its kernels; and lists from the CPU.
#include <cstdio>
#include <cstring>
#include <exception>

#include "gpu/search.hpp"
#include "neighbors/edges.hpp"

namespace {

using dpa2::gpu::Capacity;

extern "C" {
struct Calls {
  void* (*take)(const char* name, long long bytes);
  void (*release)(void*);
  void (*clear)(void*, long long bytes);
  void (*launch)(const char* source, const char* kernel, long long blocks, int threads, long long shared, const void* args,
                 long long bytes);
};

struct Settings {
  double rcut[3];  // repinit, three, repformer
  int nsel[3];
  int use_three;
  int ntypes;
  double env_protection;
  const char* pair_excluded;
  const char* descr_excluded;
};

struct Given {
  int frames, atoms, centres, open;
  const double* coords;
  const int* types;
  const dpa2::cuda::SearchInput* input;
  const int* ids;
};
}

struct Kernel {
  const char *source, *name;
};

class TestLoader : public dpa2::gpu::Loader {
 public:
  dpa2::gpu::Function function(const char* source, const char* name, const dpa2::gpu::Defines&) override {
    for (Kernel& k : kernels_)
      if (k.name == nullptr) {
        k = {source, name};
        return {&k, name};
      }
    return {};
  }
  int max_shared() const override { return 48 * 1024; }
  int multiprocessors() const override { return 132; }

 protected:
  const void* upload_bytes(const void* data, std::size_t bytes) override {
    kept_.emplace_back(static_cast<const char*>(data), static_cast<const char*>(data) + bytes);
    return kept_.back().data();
  }

 private:
  Kernel kernels_[16] = {};
  std::vector<std::vector<char>> kept_;
};

class TestQueue : public dpa2::gpu::Queue {
 public:
  explicit TestQueue(const Calls& calls) : calls_(calls) {}
  void clear(void* at, std::size_t bytes) override { calls_.clear(at, static_cast<long long>(bytes)); }

 protected:
  void launch_bytes(const dpa2::gpu::Function& f, std::int64_t blocks, int threads, std::size_t shared, const void* args,
                    std::size_t bytes) override {
    const Kernel* k = static_cast<const Kernel*>(f.handle);
    calls_.launch(k->source, k->name, blocks, threads, static_cast<long long>(shared), args, static_cast<long long>(bytes));
  }
  void* take_bytes(const char* name, std::size_t bytes) override { return calls_.take(name, static_cast<long long>(bytes)); }
  void release_bytes(void* at) override { calls_.release(at); }

 private:
  const Calls& calls_;
};

struct Tested {
  TestLoader loader;
  dpa2::NeighborSettings settings;
  std::unique_ptr<dpa2::gpu::Search> search;
};

char message[4096];

template <class F>
const char* guarded(F f) {
  try {
    f();
    return nullptr;
  } catch (const std::exception& e) {
    std::snprintf(message, sizeof message, "%s", e.what());
    return message;
  }
}

dpa2::NeighborSettings settings_of(const Settings& s) {
  dpa2::NeighborSettings to;
  to.repinit = {s.rcut[0], s.nsel[0]};
  to.three = {s.rcut[1], s.nsel[1]};
  to.repformer = {s.rcut[2], s.nsel[2]};
  to.use_three = s.use_three != 0;
  to.ntypes = s.ntypes;
  to.env_protection = s.env_protection;
  const std::ptrdiff_t pairs = static_cast<std::ptrdiff_t>(s.ntypes) * s.ntypes;
  if (s.pair_excluded != nullptr) to.pair_excluded.assign(s.pair_excluded, s.pair_excluded + pairs);
  if (s.descr_excluded != nullptr) to.descr_excluded.assign(s.descr_excluded, s.descr_excluded + pairs);
  return to;
}

}  // namespace

extern "C" {

Tested* search_new(const Settings* s) {
  Tested* to = new Tested;
  to->settings = settings_of(*s);
  to->search = std::make_unique<dpa2::gpu::Search>(to->settings, to->loader);
  return to;
}
void search_free(Tested* t) { delete t; }

const char* search_input(const Tested* t, const double* box, const int* pbc, int atoms, dpa2::cuda::SearchInput* to) {
  return guarded([&] { *to = t->search->input(box, {pbc[0] != 0, pbc[1] != 0, pbc[2] != 0}, atoms); });
}
void search_guess(const Tested* t, const Given* in, Capacity* to) {
  *to = t->search->first_guess({in->frames, in->atoms, in->centres}, in->input);
}
const char* search_grown(const Tested* t, const Given* in, const dpa2::cuda::SearchStatus* status, Capacity* c) {
  return guarded([&] { *c = t->search->grown({in->frames, in->atoms, in->centres}, *c, *status); });
}
void search_enqueue(const Tested* t, const Calls* calls, const Given* in, const Capacity* c, dpa2::gpu::Frame* out,
                    dpa2::cuda::SearchStatus* status, dpa2::cuda::SystemStatus* systems) {
  TestQueue queue(*calls);
  t->search->enqueue(queue, {{in->frames, in->atoms, in->centres}, in->open != 0, in->coords, in->types, in->input, in->ids, true}, *c,
                     *out, status, systems);
}
const char* search_check(const Tested* t, const Given* in, const dpa2::cuda::SystemStatus* systems) {
  return guarded([&] { t->search->check(in->frames, in->input, systems); });
}
// overflow (3, 4): block, atom, count, sel; returns how many. pair (2), r: the closest.
int search_remarks(const Tested* t, const dpa2::cuda::SystemStatus* system, int* overflow, int* pair, double* r) {
  const dpa2::Remarks remarks = t->search->remarks(*system);
  for (const dpa2::Overflow& o : remarks.overflow) {
    *overflow++ = static_cast<int>(o.block);
    *overflow++ = o.atom;
    *overflow++ = o.count;
    *overflow++ = o.sel;
  }
  pair[0] = remarks.closest.i;
  pair[1] = remarks.closest.j;
  *r = remarks.closest.r;
  return static_cast<int>(remarks.overflow.size());
}

// The CPU's lists of a domain with ghosts, from candidates (centres, atoms - 1): everybody else. Then copied out of `edges`.
struct Host {
  dpa2::NeighborBuilder builder;
  dpa2::Edges edges;
};
Host* host_new() { return new Host; }
void host_free(Host* h) { delete h; }
const char* host_build(Host* h, const Tested* t, const Given* in, const int* numneigh, const int* const* firstneigh) {
  return guarded([&] {
    h->builder.set_ids(in->ids);
    h->edges.keep_image = false;
    h->builder.build_from_list(in->coords, in->types, in->centres, in->atoms, numneigh, firstneigh, -1, t->settings, 1, h->edges);
  });
}
long long host_edges(const Host* h) { return h->edges.nedge(); }
void host_copy(const Host* h, long long* start, int* j, double* d, int* three, int* repformer, int* pad_repinit, int* pad_three,
               int* overflow, int* pair) {
  const dpa2::Edges& e = h->edges;
  std::copy(e.start.begin(), e.start.end(), start);
  std::copy(e.j.begin(), e.j.end(), j);
  std::copy(e.d.begin(), e.d.end(), d);
  std::copy(e.n_three.begin(), e.n_three.end(), three);
  std::copy(e.n_repformer.begin(), e.n_repformer.end(), repformer);
  std::copy(e.pad_repinit.begin(), e.pad_repinit.end(), pad_repinit);
  std::copy(e.pad_three.begin(), e.pad_three.end(), pad_three);
  for (const dpa2::Overflow& o : e.overflow) {
    overflow[2 * static_cast<int>(o.block)] = o.atom;
    overflow[2 * static_cast<int>(o.block) + 1] = o.count;
  }
  pair[0] = e.closest.i;
  pair[1] = e.closest.j;
}
}
