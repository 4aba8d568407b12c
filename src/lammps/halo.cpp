#include "halo.h"

#include <algorithm>
#include <utility>

#include <lammps/atom.h>
#include <lammps/comm.h>
#include <lammps/utils.h>

#include "rows.h"

using namespace LAMMPS_NS;

namespace dpa2_lammps {

namespace {
constexpr int tag_of_lists = 1, tag_of_rows = 2;

template <class Byte>
Byte* place(Byte* packed, int row, int width, int size) {
  return packed + static_cast<std::ptrdiff_t>(row) * width * size;
}
}  // namespace

Halo::~Halo() {
  int over = 0;
  MPI_Finalized(&over);
  if (messages_ != MPI_COMM_NULL && !over) MPI_Comm_free(&messages_);
}

// Once per rebuild LAMMPS brings the ghosts' owners; from then on the ways are known.
void Halo::find_owners(const Forward& forward) {
  const int nlocal = atom->nlocal, nall = nlocal + atom->nghost;
  owner_.resize(at(2 * std::max(nall, 1)));
  for (int i = 0; i < nlocal; i++) {
    owner_[at(2 * i)] = comm->me;
    owner_[at(2 * i + 1)] = i;
  }
  forward(owner_.data(), 2);
  const auto process = [&](int i) { return static_cast<int>(owner_[at(2 * i)]); };
  receive_.clear();
  images_.clear();
  owners_.clear();
  for (int i = nlocal; i < nall; i++) {
    if (process(i) == comm->me) {
      images_.push_back(i);
      owners_.push_back(static_cast<int>(owner_[at(2 * i + 1)]));
    } else {
      receive_.push_back(i);
    }
  }
  std::stable_sort(receive_.begin(), receive_.end(), [&](int a, int b) { return process(a) < process(b); });
  from_.clear();
  for (std::size_t k = 0; k < receive_.size(); k++) {
    if (from_.empty() || from_.back().process != process(receive_[k])) from_.push_back({process(receive_[k]), static_cast<int>(k), 0});
    from_.back().count++;
  }
}

// A process learns how many others ask it, then takes as many lists from whoever comes.
void Halo::ask_owners(const std::vector<int>& wanted) {
  std::vector<int> asked(at(comm->nprocs), 0), ones(at(comm->nprocs), 1);
  for (const Peer& peer : from_) asked[at(peer.process)] = 1;
  int askers = 0;
  MPI_Reduce_scatter(asked.data(), &askers, ones.data(), MPI_INT, MPI_SUM, messages_);
  requests_.resize(from_.size());
  for (std::size_t k = 0; k < from_.size(); k++)
    MPI_Isend(wanted.data() + from_[k].first, from_[k].count, MPI_INT, from_[k].process, tag_of_lists, messages_, &requests_[k]);
  std::vector<std::pair<int, std::vector<int>>> lists(at(askers));
  for (auto& [process, rows] : lists) {
    MPI_Status status;
    int count = 0;
    MPI_Probe(MPI_ANY_SOURCE, tag_of_lists, messages_, &status);
    MPI_Get_count(&status, MPI_INT, &count);
    process = status.MPI_SOURCE;
    rows.resize(at(count));
    MPI_Recv(rows.data(), count, MPI_INT, process, tag_of_lists, messages_, MPI_STATUS_IGNORE);
  }
  MPI_Waitall(static_cast<int>(requests_.size()), requests_.data(), MPI_STATUSES_IGNORE);
  std::sort(lists.begin(), lists.end());  // whoever came first
  to_.clear();
  send_.clear();
  for (const auto& [process, rows] : lists) {
    to_.push_back({process, static_cast<int>(send_.size()), static_cast<int>(rows.size())});
    send_.insert(send_.end(), rows.begin(), rows.end());
  }
}

void Halo::renew(dpa2_domain* atoms, const Forward& forward, bool on_device) {
  if (messages_ == MPI_COMM_NULL) {
    MPI_Comm_dup(world, &messages_);
    if (comm->me == 0 && comm->nprocs > 1)
      utils::logmesg(lmp, "{}: rows of ghosts go to MPI in memory of the {}\n", style, on_device ? "GPU" : "host");
  }
  find_owners(forward);
  std::vector<int> wanted(receive_.size());
  for (std::size_t k = 0; k < receive_.size(); k++) wanted[k] = static_cast<int>(owner_[at(2 * receive_[k] + 1)]);
  ask_owners(wanted);

  const auto size = [](const std::vector<int>& list) { return static_cast<int>(list.size()); };
  dpa2_halo halo = {};
  halo.nsend = size(send_);
  halo.send = send_.data();
  halo.nreceive = size(receive_);
  halo.receive = receive_.data();
  halo.nimages = size(images_);
  halo.images = images_.data();
  halo.owners = owners_.data();
  halo.on_device = on_device ? 1 : 0;
  halo.context = this;
  halo.forward = [](void* self, const void* sent, void* received, int width, int bytes) {
    Halo& h = *static_cast<Halo*>(self);
    return h.carry(h.to_, h.from_, sent, received, width, bytes);
  };
  halo.reverse = [](void* self, const void* sent, void* received, int width, int bytes) {
    Halo& h = *static_cast<Halo*>(self);
    return h.carry(h.from_, h.to_, sent, received, width, bytes);
  };
  if (dpa2_domain_set_halo(atoms, &halo) != DPA2_OK) fail_here(dpa2_last_error());
}

int Halo::carry(const std::vector<Peer>& to, const std::vector<Peer>& from, const void* sent, void* received, int width,
                int size) noexcept {
  try {
    const MPI_Datatype number = size == 8 ? MPI_DOUBLE : MPI_FLOAT;
    requests_.resize(to.size() + from.size());
    MPI_Request* request = requests_.data();
    for (const Peer& peer : from)
      MPI_Irecv(place(static_cast<char*>(received), peer.first, width, size), peer.count * width, number, peer.process, tag_of_rows,
                messages_, request++);
    for (const Peer& peer : to)
      MPI_Isend(place(static_cast<const char*>(sent), peer.first, width, size), peer.count * width, number, peer.process, tag_of_rows,
                messages_, request++);
    MPI_Waitall(static_cast<int>(requests_.size()), requests_.data(), MPI_STATUSES_IGNORE);
    return 0;
  } catch (...) {  // an exception must not go through C
    thrown_ = std::current_exception();
    return 1;
  }
}

void Halo::check() {
  if (thrown_) std::rethrow_exception(std::exchange(thrown_, nullptr));
}

double Halo::memory_usage() const {
  return 8.0 * static_cast<double>(owner_.capacity()) +
         4.0 * static_cast<double>(send_.capacity() + receive_.capacity() + images_.capacity() + owners_.capacity());
}

}  // namespace dpa2_lammps
