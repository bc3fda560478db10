// A serving engine's steps: who computes what, who is put back, and how long it takes.
//
// The order of things is vLLM's (version 1 scheduler, `v1/core/sched/scheduler.py`): running requests first, in order of
// their start; where memory lacks the last started is preempted; then waiting requests, first come, first served,
// unless one was preempted in this step. A request starts only where all of its prompt would fit now, so that prompts
// spread over steps do not push each other out. Tensors are fragmented as blocks are not: after one of them ran out of
// memory, no request starts until another is done. A step costs O(running requests), and O(blocks) where a request
// starts or ends.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "serving/manager.h"
#include "serving/request.h"
#include "wide_sum.h"

namespace memscope::serving {

struct Scheduler {
  std::int64_t max_running = 0;
  std::int64_t step_tokens = 0;  // the most that a step computes
  bool is_chunked = false;       // a prompt may be computed over several steps
  bool is_static = false;        // a batch runs to its end before the next one starts
  bool is_padded = false;        // prompts of a batch are as long as its longest one, and all grow until all are done
  std::int64_t longest = 0;      // tokens of the longest sequence that is accepted
  std::int64_t swap_units = 0;   // host memory for preempted requests; 0: recompute them
};

// What a step costs.
struct StepCosts {
  double flops_per_us = 0;
  double bytes_per_us = 0;
  double flops_per_token = 0;
  double flops_per_pair = 0;
  double weight_bytes = 0;
  double overhead_us = 0;
  double swap_bytes_per_us = 0;
  double unit_bytes = 0;
};

// One step: when it was, and what memory held in it, in units.
struct Step {
  std::int64_t start_us;  // later than the step before it ended if nothing was there to serve
  std::int64_t end_us;
  std::int64_t n_running;
  std::int64_t n_waiting;
  std::int64_t n_preemptions;  // until now
  std::int64_t tokens;
  std::int64_t taken;  // with slack
  std::int64_t reservation;
  std::int64_t internal;
  std::int64_t external;
  std::int64_t saved;
};

// Memory over time, in unit·µs: parts of all of it.
struct MemoryOverTime {
  WideSum tokens;
  WideSum reservation;
  WideSum internal;
  WideSum external;
  WideSum unclaimed;
};

struct Counts {
  std::int64_t now_us = 0;
  std::int64_t busy_us = 0;
  std::int64_t n_done = 0;
  std::int64_t n_refused = 0;
  std::int64_t n_steps = 0;
  std::int64_t n_preemptions = 0;
  std::int64_t n_swaps = 0;
  std::int64_t n_recomputed_tokens = 0;  // computed before and lost to a preemption
  std::int64_t n_generated_tokens = 0;
  std::int64_t n_computed_tokens = 0;
  std::int64_t n_copies = 0;      // blocks copied when samples of a request went apart
  std::int64_t n_pad_tokens = 0;  // that prompts and finished sequences were padded with
  std::int64_t peak_running = 0;
  std::int64_t peak_taken = 0;
  std::int64_t peak_tokens = 0;
};

enum class Status : std::uint8_t { kDone, kPaused, kStuck };

class Engine {
 public:
  Engine(std::vector<Request> requests, const Scheduler& scheduler, const StepCosts& costs,
         std::unique_ptr<Manager> manager);

  // Run steps until every request is done, or so many steps were made.
  Status run(std::size_t n_steps);

  const std::vector<Request>& requests() const { return requests_; }
  const std::vector<Step>& steps() const { return steps_; }
  const MemoryOverTime& memory() const { return memory_; }
  const Counts& counts() const { return counts_; }
  const Manager& manager() const { return *manager_; }
  // Whether nothing runs, waits or holds memory, as it must be at the end.
  bool is_empty() const;

 private:
  // What a step computes.
  struct Work {
    std::int64_t budget = 0;
    std::int64_t n_computed = 0;
    double n_pairs = 0;
  };
  // Requests that a padded batch may still take, and what their prompts are padded to.
  struct Batch {
    std::int64_t n_left = 0;
    std::int64_t prompt_tokens = 0;
  };
  // Tokens that a request has before it starts, and after that.
  struct Growth {
    std::int64_t before;
    std::int64_t after;
  };

  void arrive();
  void pass_over_refused();
  bool has_work() const;
  bool is_done() const { return counts_.n_done + counts_.n_refused == std::ssize(requests_); }
  void idle();
  void refuse_head();

  // The tokens that a step computes, with padding; 0 if it does nothing.
  Work choose_work();
  void run_running(Work& work);
  bool grow_or_preempt(std::size_t number, std::int64_t n_tokens);
  void pad_finished(Work& work);
  void start_waiting(Work& work);
  std::optional<std::size_t> head();
  std::int64_t longest_running() const;
  bool has_place(const Request& request) const;
  std::optional<Growth> admit(Request& request, std::int64_t budget);
  void take_from_waiting(std::size_t number);
  void compute(const Request& request, std::int64_t before, std::int64_t after, Work& work);
  void preempt();
  void swap_in(Request& request, std::int64_t n_tokens);

  Batch choose_batch();
  bool may_be_batch(std::int64_t n_sequences, std::int64_t length, std::int64_t n_left) const;

  void note_step();
  std::int64_t lost_units() const;
  void pass_time(const Work& work, std::int64_t n_tokens);
  void finish_step();
  bool finish_token(Request& request);
  void release_finished();

  std::vector<Request> requests_;
  Scheduler scheduler_;
  StepCosts costs_;
  std::unique_ptr<Manager> manager_;

  std::size_t n_arrived_ = 0;
  std::size_t next_ = 0;  // the next request that has not been started
  std::vector<std::size_t> running_;   // in order of start
  std::set<std::size_t> preempted_;    // in order of arrival
  std::vector<std::size_t> finished_;  // done, but still holding memory: of a static batch until all of it is done
  std::int64_t n_sequences_ = 0;       // samples of all running requests
  std::int64_t swapped_units_ = 0;
  std::int64_t step_swapped_units_ = 0;  // moved to or from the host in this step
  bool is_blocked_ = false;              // a request waits because memory lacks
  bool is_full_ = false;                 // tensors ran out of memory: nothing starts until a request is done
  Batch batch_;

  std::vector<Step> steps_;
  MemoryOverTime memory_;
  Counts counts_;
};

}  // namespace memscope::serving
