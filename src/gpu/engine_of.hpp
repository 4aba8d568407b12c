// An engine of one precision: programs by size, memory that grows, graphs that repeat.
#pragma once

#include <deque>
#include <exception>
#include <list>
#include <memory>
#include <mutex>
#include <vector>

#include "gpu/device.hpp"
#include "gpu/device_loader.hpp"
#include "gpu/engine.hpp"
#include "gpu/evaluation.hpp"
#include "gpu/halo.hpp"
#include "gpu/program.hpp"
#include "gpu/staging.hpp"
#include "gpu/workspace.hpp"

namespace dpa2::gpu {

template <class T>
class EngineOf final : public Engine {
 public:
  EngineOf(const Config& config, const Folded& folded, int device, Hooks hooks);
  ~EngineOf() override;

  void evaluate(const Input& input, const Request& request, const Output& out, std::vector<Remarks>* remarks) override;
  bool check(std::vector<Remarks>* remarks) override;
  [[nodiscard]] int device() const override { return device_->number(); }
  [[nodiscard]] std::string warning() const override { return loader_->warning(); }
  [[nodiscard]] std::int64_t bytes() const override;
  [[nodiscard]] int launches() const override;
  [[nodiscard]] MemoryUse memory(const Expected& expected) const override;
  [[nodiscard]] std::vector<NeededKernel> kernels() const override { return loader_->kernels(); }
  [[nodiscard]] std::unique_ptr<Engine> another() const override { return std::unique_ptr<Engine>(new EngineOf(*this)); }

 private:
  EngineOf(const EngineOf& model);
  void prepare();

  /// A step whose results stayed on the device.
  struct Pending {
    ProgramKey key;
    Capacity tried;
    std::vector<cuda::SearchInput> cells;
    std::unique_ptr<Pinned> status;
    std::unique_ptr<Event> done;
  };

  struct Call {
    const Input& input;
    const Request& request;
    const Output& out;
    const std::vector<cuda::SearchInput>& cells;
    std::vector<Remarks>* remarks;
  };

  void check_input(const Input& input, const Request& request) const;
  void empty(const Input& input, const Request& request, const Output& out) const;
  /// `failures`: how often lists did not fit.
  bool attempt(const Call& call, int& failures);
  /// False where there is none that could go.
  bool give_up_memory();
  bool step(Program& p, const Call& call, Handle stream, bool capturing);
  Program& program(const Call& call);
  void plan(Program& p, const Call& call, bool whole) const;
  void run(Program& p, const Request& request, Handle stream, bool capturing);
  bool prove(Program& p, const Call& call, Handle stream);
  /// What the search of the step says, in memory of the host that stays until others are read.
  const unsigned char* read_status(const Program& p, Handle stream);
  /// The part of what goes in that is always of the host.
  void write_cells(const Program& p, const Call& call, unsigned char* to) const;
  void bring_in(const Program& p, const Call& call, Handle stream, bool capturing);
  /// Of a part of a system: the lists first, until they fit; other processes wait for the exchanges of the rest.
  bool run_part(Program& p, const Call& call, Handle stream);
  Capacity part_guess(const ProgramKey& key) const;
  void require_no_ghosts(const Program& p, const Frame& frame, Handle stream) const;
  bool host_results(Program& p, const Call& call, Handle stream);
  bool device_results(Program& p, const Call& call, Handle stream, bool capturing);
  Pending take_pending(std::size_t bytes);
  /// Whether the lists fitted; else the capacities have grown. Throws what was wrong with the atoms.
  bool judge(Program* p, const ProgramKey& key, const Capacity& tried, const std::vector<cuda::SearchInput>& cells, const unsigned char* at,
             std::vector<Remarks>* remarks);
  void settle(bool wait);
  [[noreturn]] void report_shortage(const Call& call, const Error& error);

  double table_begins_ = 0;  // angstrom: pairs must not be closer, where there is a table
  std::shared_ptr<const Device> device_;
  Hooks hooks_;
  std::shared_ptr<const DeviceLoader> loader_;
  std::shared_ptr<const Evaluation<T>> evaluation_;
  std::unique_ptr<DeviceLoader> halo_loader_;
  std::unique_ptr<const HaloKernels<T>> halo_;  // loaded when there is a halo

  mutable std::mutex mutex_;
  std::unique_ptr<Stream> stream_, capture_stream_;
  std::unique_ptr<Event> last_;    // of the last step
  std::unique_ptr<Event> packed_;  // rows for other processes
  Handle last_stream_ = nullptr;
  std::unique_ptr<Staging> in_, out_;
  Workspace workspace_;
  std::vector<Workspace::Pieces> kept_;  // that a caller's graph may still use
  bool captured_ = false;
  std::list<Program> programs_;
  Capacity parts_;  // of the last part of a system, and its centres: sizes change with every rebuild, densities hardly do
  int part_centres_ = 0;
  std::deque<Pending> pending_;
  std::vector<Pending> spare_;  // their memory is used again
  bool void_ = false;
  std::vector<Remarks> last_remarks_;  // of results on the device
  int launches_ = 0;
  std::uint64_t clock_ = 0;
};

extern template class EngineOf<float>;
extern template class EngineOf<double>;

}  // namespace dpa2::gpu
