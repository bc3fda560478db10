#include "serving/engine.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace memscope::serving {

Engine::Engine(std::vector<Request> requests, const Scheduler& scheduler, const StepCosts& costs,
               std::unique_ptr<Manager> manager)
    : requests_(std::move(requests)), scheduler_(scheduler), costs_(costs), manager_(std::move(manager)) {}

Status Engine::run(std::size_t n_steps) {
  const std::size_t n_end = steps_.size() + n_steps;
  while (!is_done()) {
    if (steps_.size() == n_end) {
      return Status::kPaused;
    }
    arrive();
    if (!has_work()) {
      idle();
      continue;
    }
    const std::int64_t n_pads = counts_.n_pad_tokens;
    const Work work = choose_work();
    if (work.n_computed == 0) {
      if (!manager_->is_fragmented()) {
        return Status::kStuck;
      }
      refuse_head();
      continue;
    }
    note_step();
    pass_time(work, work.n_computed + counts_.n_pad_tokens - n_pads);
    finish_step();
    steps_.back().end_us = counts_.now_us;
    steps_.back().n_waiting = static_cast<std::int64_t>(n_arrived_ - next_ + preempted_.size());
  }
  return Status::kDone;
}

bool Engine::is_empty() const {
  const Usage& usage = manager_->usage();
  return running_.empty() && preempted_.empty() && finished_.empty() && n_sequences_ == 0 && swapped_units_ == 0 &&
         usage.taken == 0 && usage.tokens == 0 && usage.future == 0 && usage.slack == 0 && usage.read == 0 &&
         usage.saved == 0;
}

void Engine::arrive() {
  while (n_arrived_ < requests_.size() && requests_[n_arrived_].arrival_us <= counts_.now_us) {
    ++n_arrived_;
  }
  pass_over_refused();
}

void Engine::pass_over_refused() {
  while (next_ < n_arrived_ && requests_[next_].is_refused) {
    ++next_;
    ++counts_.n_refused;
  }
}

bool Engine::has_work() const { return !running_.empty() || !preempted_.empty() || next_ < n_arrived_; }

// Let the time pass until the next request arrives.
void Engine::idle() {
  if (n_arrived_ < requests_.size()) {
    memory_.unclaimed.add(requests_[n_arrived_].arrival_us - counts_.now_us, manager_->capacity());
    counts_.now_us = requests_[n_arrived_].arrival_us;
  }
}

// Give up a request that runs out of memory alone: what it needs at once is more than there is.
void Engine::refuse_head() {
  if (preempted_.empty()) {
    // It is counted where it is passed over.
    requests_.at(next_).is_refused = true;
    return;
  }
  requests_.at(*preempted_.begin()).is_refused = true;
  preempted_.erase(preempted_.begin());
  ++counts_.n_refused;
}

Engine::Work Engine::choose_work() {
  Work work{.budget = scheduler_.step_tokens};
  const std::int64_t n_preemptions = counts_.n_preemptions;
  step_swapped_units_ = 0;
  if (!scheduler_.is_static || running_.empty()) {
    is_blocked_ = false;
  }
  run_running(work);
  if (scheduler_.is_padded) {
    pad_finished(work);
  }
  bool was_preempted = counts_.n_preemptions > n_preemptions;
  if (scheduler_.is_static && running_.empty()) {
    // The last of a batch was put back: what the finished ones hold makes room for it.
    release_finished();
    was_preempted = false;
  }
  if (running_.empty()) {
    is_full_ = false;
  }
  if (!was_preempted && !is_full_ && (!scheduler_.is_static || running_.empty())) {
    start_waiting(work);
  }
  counts_.n_computed_tokens += work.n_computed;
  counts_.peak_running = std::max(counts_.peak_running, std::ssize(running_));
  const Usage& usage = manager_->usage();
  counts_.peak_taken = std::max(counts_.peak_taken, usage.taken + usage.slack);
  counts_.peak_tokens = std::max(counts_.peak_tokens, usage.tokens);
  counts_.n_steps += work.n_computed > 0;
  return work;
}

void Engine::run_running(Work& work) {
  for (std::size_t i = 0; i < running_.size() && work.budget > 0;) {
    const std::size_t number = running_[i];
    const Request& request = requests_[number];
    const std::int64_t before = request.computed_tokens, n_left = request.known_tokens() - before;
    const std::int64_t n_tokens = manager_->rules().n_affordable(request, before, n_left, work.budget);
    if (n_tokens == 0) {
      // Its samples are more than what is left of the step: the next one may have fewer.
      ++i;
      continue;
    }
    if (!grow_or_preempt(number, before + n_tokens)) {
      return;
    }
    compute(request, before, before + n_tokens, work);
    ++i;
  }
}

// Let a request grow, and put back the last started ones until it can; false if that was the request itself.
bool Engine::grow_or_preempt(std::size_t number, std::int64_t n_tokens) {
  while (!manager_->grow(requests_[number], n_tokens)) {
    is_blocked_ = true;
    const bool is_itself = running_.back() == number;
    preempt();
    if (is_itself) {
      return false;
    }
  }
  return true;
}

void Engine::compute(const Request& request, std::int64_t before, std::int64_t after, Work& work) {
  const Rules& rules = manager_->rules();
  const std::int64_t n_computed = rules.n_computed(request, before, after);
  counts_.n_copies += rules.n_copies(request, before, after);
  work.budget -= n_computed;
  work.n_computed += n_computed;
  work.n_pairs += rules.n_pairs(request, before, after);
}

// Let the finished sequences of a padded batch grow with the others.
void Engine::pad_finished(Work& work) {
  double n_pairs = 0;
  for (std::size_t i = 0; i < finished_.size() && !running_.empty(); ++i) {
    Request& request = requests_[finished_[i]];
    while (!manager_->pad_one(request)) {
      is_blocked_ = true;
      preempt();
      if (running_.empty()) {
        work.n_pairs += n_pairs;
        return;
      }
    }
    counts_.n_pad_tokens += request.n_samples;
    n_pairs += static_cast<double>(request.n_samples * (request.computed_tokens + request.pad_tokens));
  }
  work.n_pairs += n_pairs;
}

void Engine::start_waiting(Work& work) {
  if (scheduler_.is_padded) {
    batch_ = choose_batch();
  }
  while (work.budget > 0) {
    const auto number = head();
    if (!number || !has_place(requests_[*number])) {
      return;
    }
    Request& request = requests_[*number];
    const auto growth = admit(request, work.budget);
    if (!growth) {
      return;
    }
    take_from_waiting(*number);
    compute(request, growth->before, growth->after, work);
  }
}

// The next request to start: a preempted one, the first to have arrived, or a new one.
std::optional<std::size_t> Engine::head() {
  if (!preempted_.empty()) {
    return *preempted_.begin();
  }
  pass_over_refused();
  return next_ < n_arrived_ ? std::optional(next_) : std::nullopt;
}

// Whether a step has room for a request's samples, and a padded batch was chosen to have it.
bool Engine::has_place(const Request& request) const {
  return !(scheduler_.is_padded && batch_.n_left == 0) && n_sequences_ + request.n_samples <= scheduler_.max_running;
}

// Give a request that waits its memory; none if it must wait on.
std::optional<Engine::Growth> Engine::admit(Request& request, std::int64_t budget) {
  const std::int64_t known = request.known_tokens();
  const std::int64_t n_cached = request.is_swapped ? 0 : manager_->cached_tokens(request);
  const std::int64_t before = request.is_swapped ? request.computed_tokens : n_cached;
  const std::int64_t n_tokens = manager_->rules().n_affordable(request, before, known - before, budget);
  if (n_tokens == 0 || (n_tokens < known - before && !scheduler_.is_chunked)) {
    return std::nullopt;
  }
  request.computed_tokens = 0;
  if (scheduler_.is_padded) {
    request.pad_tokens = batch_.prompt_tokens - known;
  }
  if (!manager_->start(request, {n_cached, before + n_tokens, longest_running()})) {
    request.computed_tokens = request.is_swapped ? before : 0;
    is_blocked_ = true;
    return std::nullopt;
  }
  counts_.n_pad_tokens += request.n_samples * request.pad_tokens;
  --batch_.n_left;
  if (request.is_swapped) {
    swap_in(request, before);
  } else if (preempted_.empty()) {
    manager_->note_first_start(request, n_cached);
  }
  return Growth{before, before + n_tokens};
}

// Tokens of the longest running request, of all its samples and with padding.
std::int64_t Engine::longest_running() const {
  std::int64_t longest = 0;
  for (const std::size_t number : running_) {
    const Request& request = requests_[number];
    longest = std::max(longest, request.n_samples * (request.computed_tokens + request.pad_tokens));
  }
  return longest;
}

void Engine::take_from_waiting(std::size_t number) {
  if (preempted_.erase(number) == 0) {
    ++next_;
  }
  running_.push_back(number);
  n_sequences_ += requests_[number].n_samples;
}

void Engine::swap_in(Request& request, std::int64_t n_tokens) {
  const std::int64_t units = manager_->rules().taken_units(request, n_tokens);
  request.is_swapped = false;
  swapped_units_ -= units;
  step_swapped_units_ += units;
}

// Put the last started request back: into host memory if that has room, else to be computed again.
void Engine::preempt() {
  const std::size_t number = running_.back();
  running_.pop_back();
  Request& request = requests_[number];
  const std::int64_t held = request.computed_tokens;
  manager_->forget(request);
  manager_->release(request);
  ++counts_.n_preemptions;
  n_sequences_ -= request.n_samples;
  const std::int64_t units = scheduler_.swap_units > 0 ? manager_->rules().taken_units(request, held) : 0;
  if (0 < units && units <= scheduler_.swap_units - swapped_units_) {
    request.computed_tokens = held;
    request.is_swapped = true;
    swapped_units_ += units;
    step_swapped_units_ += units;
    ++counts_.n_swaps;
  } else {
    counts_.n_recomputed_tokens += manager_->rules().n_computed(request, 0, held);
  }
  is_full_ = manager_->is_fragmented();
  preempted_.insert(number);
}

// The requests of the next batch, in the order in which they start, as many as fit when all are padded.
//
// All prompts are as long as the longest of the batch, and every sequence grows until the last one is done: that must
// not get longer than the longest sequence that is accepted, and all prompts must fit into one step and into memory. Of
// tensors only the bytes are looked at: one of the batch may still find no room among the others.
Engine::Batch Engine::choose_batch() {
  Batch batch;
  std::int64_t n_left = 0, n_sequences = 0;
  const auto takes = [&](const Request& request) {
    const std::int64_t length = std::max(batch.prompt_tokens, request.known_tokens());
    const std::int64_t left = std::max(n_left, request.output_tokens - 1 - request.generated_tokens);
    const std::int64_t more = n_sequences + request.n_samples;
    if (batch.n_left > 0 && !may_be_batch(more, length, left)) {
      return false;
    }
    if (batch.n_left > 0 && !manager_->holds_batch(more, length)) {
      is_blocked_ = true;
      return false;
    }
    batch = {batch.n_left + 1, length};
    n_left = left;
    n_sequences = more;
    return true;
  };
  for (const std::size_t number : preempted_) {
    if (!takes(requests_[number])) {
      return batch;
    }
  }
  for (std::size_t number = next_; number < n_arrived_; ++number) {
    if (!requests_[number].is_refused && !takes(requests_[number])) {
      return batch;
    }
  }
  return batch;
}

// Whether so many sequences, padded to that length, of which one still gets so many tokens, may be a batch.
bool Engine::may_be_batch(std::int64_t n_sequences, std::int64_t length, std::int64_t n_left) const {
  return n_sequences <= scheduler_.max_running && n_sequences * length <= scheduler_.step_tokens &&
         length + n_left <= scheduler_.longest;
}

// Put down what memory holds in a step, before its time passes.
void Engine::note_step() {
  const Usage& usage = manager_->usage();
  steps_.push_back({.start_us = counts_.now_us,
                    .end_us = 0,
                    .n_running = std::ssize(running_),
                    .n_waiting = 0,
                    .n_preemptions = counts_.n_preemptions,
                    .tokens = usage.tokens,
                    .taken = usage.taken + usage.slack,
                    .reservation = usage.future,
                    .internal = usage.taken - usage.tokens - usage.future,
                    .external = usage.slack + lost_units(),
                    .saved = usage.saved});
}

// Units that are free while a request waits for memory.
std::int64_t Engine::lost_units() const {
  return is_blocked_ ? manager_->free_units() - manager_->usage().slack : 0;
}

// Let a step's time pass, and add up what memory held meanwhile.
void Engine::pass_time(const Work& work, std::int64_t n_tokens) {
  const Usage& usage = manager_->usage();
  const double flops =
      static_cast<double>(n_tokens) * costs_.flops_per_token + work.n_pairs * costs_.flops_per_pair;
  const double traffic = costs_.weight_bytes + static_cast<double>(usage.read) * costs_.unit_bytes;
  double took = std::max(flops / costs_.flops_per_us, traffic / costs_.bytes_per_us) + costs_.overhead_us;
  took += static_cast<double>(step_swapped_units_) * costs_.unit_bytes / costs_.swap_bytes_per_us;
  const std::int64_t duration = std::max<std::int64_t>(1, static_cast<std::int64_t>(took + 0.5));
  const std::int64_t lost = lost_units();
  memory_.tokens.add(usage.tokens, duration);
  memory_.reservation.add(usage.future, duration);
  memory_.internal.add(usage.taken - usage.tokens - usage.future, duration);
  memory_.external.add(usage.slack + lost, duration);
  memory_.unclaimed.add(manager_->free_units() - usage.slack - lost, duration);
  counts_.now_us += duration;
  counts_.busy_us += duration;
}

// Count the tokens that came out, and let those go that are done.
void Engine::finish_step() {
  std::size_t n_left = 0;
  for (const std::size_t number : running_) {
    if (finish_token(requests_[number])) {
      finished_.push_back(number);
    } else {
      running_[n_left++] = number;
    }
  }
  running_.resize(n_left);
  if (running_.empty() || !scheduler_.is_static) {
    release_finished();
  }
}

// Whether a request is done with the token that came out, if one did.
bool Engine::finish_token(Request& request) {
  if (request.computed_tokens != request.known_tokens()) {
    return false;
  }
  if (request.generated_tokens == 0) {
    request.first_token_us = counts_.now_us;
  }
  ++request.generated_tokens;
  counts_.n_generated_tokens += request.n_samples;
  if (request.generated_tokens < request.output_tokens) {
    return false;
  }
  ++counts_.n_done;
  is_full_ = false;
  n_sequences_ -= request.n_samples;
  manager_->forget(request);
  return true;
}

// Give back what requests hold that are done.
void Engine::release_finished() {
  for (const std::size_t number : finished_) {
    manager_->release(requests_[number]);
  }
  finished_.clear();
}

}  // namespace memscope::serving
