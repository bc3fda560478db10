// A way to manage key/value memory: what a request takes, and gives back.
#pragma once

#include <cstdint>
#include <utility>

#include "serving/request.h"
#include "serving/rules.h"

namespace memscope::serving {

// What memory holds now, in units.
struct Usage {
  std::int64_t taken = 0;     // by requests: what cannot serve another
  std::int64_t tokens = 0;    // of tokens held, each shared one counted once
  std::int64_t future = 0;    // of tokens still to come, of regions that are there for them
  std::int64_t slack = 0;     // what the buddy allocator's powers of two add
  std::int64_t cached = 0;    // of cached blocks that nobody reads
  std::int64_t read = 0;      // of tokens read by all sequences, shared ones counted for each
  std::int64_t saved = 0;     // that would be taken on top if no block were shared
};

// What managers that share prefixes count.
struct PrefixCounts {
  std::int64_t n_evictions = 0;
  std::int64_t n_queried_blocks = 0;  // full blocks of prompts that were looked for at a request's first start
  std::int64_t n_hit_blocks = 0;
};

// What managers that keep tensors count.
struct TensorCounts {
  std::int64_t peak_reserved_bytes = 0;
  std::int64_t n_retries = 0;  // allocations served, or refused, only after all unused memory was given back
};

// What a request has when it starts.
struct Start {
  std::int64_t n_cached = 0;         // tokens that are cached already
  std::int64_t n_tokens = 0;         // tokens that it holds after the step, with those
  std::int64_t longest_running = 0;  // tokens of the longest running request: of all its samples, with padding
};

// Keeps the books that all managers have in common; what differs are the private hooks.
class Manager {
 public:
  Manager(Rules rules, std::int64_t capacity, bool is_padded)
      : rules_(std::move(rules)), capacity_(capacity), is_padded_(is_padded) {}
  Manager(const Manager&) = delete;
  Manager& operator=(const Manager&) = delete;
  virtual ~Manager() = default;

  // Take memory for a request that holds nothing. False, and nothing is changed, if there is not enough for all that it
  // will compute before its next token comes out.
  bool start(Request& request, const Start& start);
  // Take what a running request needs to hold `n_tokens`. False if there is not enough: nothing is changed then, but
  // tensors that were made longer already; calling it again goes on from there.
  bool grow(Request& request, std::int64_t n_tokens);
  // Make a finished request's sequences one token longer, as the padded batch that it is part of goes on. As grow.
  bool pad_one(Request& request);
  // Count a request's tokens no longer as held, while its memory stays taken.
  void forget(const Request& request);
  // Give back the memory of a request whose tokens are forgotten.
  void release(Request& request);

  // Tokens at the start of a prompt that are cached; at least one is left to compute.
  virtual std::int64_t cached_tokens(const Request&) const { return 0; }
  // A request that was never preempted was started, with so many tokens cached.
  virtual void note_first_start(const Request&, std::int64_t /*n_cached*/) {}
  // Whether memory, all of which is free, holds so many sequences of that length (padded batches).
  virtual bool holds_batch(std::int64_t /*n_sequences*/, std::int64_t /*n_tokens*/) const { return true; }
  // Whether what is free may not serve a request that it is enough for.
  virtual bool is_fragmented() const { return false; }
  virtual PrefixCounts prefix_counts() const { return {}; }
  virtual TensorCounts tensor_counts() const { return {}; }

  const Rules& rules() const { return rules_; }
  const Usage& usage() const { return usage_; }
  std::int64_t capacity() const { return capacity_; }
  std::int64_t free_units() const { return capacity_ - usage_.taken; }

 protected:
  Usage usage_;

 private:
  // Before a request takes its first tokens: whether there is memory for it, and what it takes as a whole.
  virtual bool admit(Request& request, const Start& start) = 0;
  virtual bool take(const Request& request, std::int64_t n_tokens) = 0;
  // Make the sequences of a padded batch's request one longer.
  virtual bool take_pad(const Request&) { return true; }
  // Undo what a failed start took.
  virtual void drop(const Request&) {}
  virtual void give_back(const Request& request) = 0;
  // After a request's tokens are counted as held, before which it held so many.
  virtual void note_held(const Request&, std::int64_t /*before*/) {}
  // Units of a request's tokens that others may hold too, and that are counted where they are shared.
  virtual std::int64_t shared_units(const Request&) const { return 0; }
  // Whether memory for all tokens that a request will have is taken at its start.
  virtual bool reserves() const { return false; }

  void hold(Request& request, std::int64_t n_tokens);

  Rules rules_;
  std::int64_t capacity_;
  bool is_padded_;
};

}  // namespace memscope::serving
