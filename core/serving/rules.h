// How much memory the sequences of a request take, in units, and how much work their tokens are.
//
// A request for several samples is sequences that begin with one prompt and go on each its own way. Where a manager
// shares blocks, the prompt is computed and kept once. From the first token on which samples differ, its full blocks
// stay shared; its last block, where that is partly filled, is copied for all samples but one, which goes on in it
// (PagedAttention, arXiv 2309.06180, section 4.4). Other managers compute and keep the prompt for each sample.
#pragma once

#include <cstdint>
#include <vector>

#include "serving/request.h"

namespace memscope::serving {

// The layers that look back over so many tokens, 0 for all of them, and units of a token in those.
struct Window {
  std::int64_t tokens;
  std::int64_t units;
};

// Tables by the number of tokens of one sequence, from 0 to the longest that is accepted, and what samples share.
struct Rules {
  std::vector<std::int64_t> taken;
  std::vector<std::int64_t> held;
  std::vector<Window> windows;
  std::int64_t private_tokens = 1;  // by which a sequence's own part grows, where samples or prefixes are shared
  bool shares_samples = false;

  // Sequences that are kept when each has so many tokens: one while the prompt is shared as a whole.
  std::int64_t n_sequences(const Request& request, std::int64_t n_tokens) const;
  // Units that a request takes when each sample has so many tokens.
  std::int64_t taken_units(const Request& request, std::int64_t n_tokens) const;
  // Units that the samples would take on top if each had its prompt's blocks for itself.
  std::int64_t saved_units(const Request& request, std::int64_t n_tokens) const;
  // Units of tokens that a request keeps when each sample has so many, shared ones counted once.
  std::int64_t held_units(const Request& request, std::int64_t n_tokens) const;
  // Units of tokens, and of what they are padded with, that all samples read in a step.
  std::int64_t read_units(const Request& request, std::int64_t n_tokens) const;

  // Tokens to compute so that every sample gets from so many to so many.
  std::int64_t n_computed(const Request& request, std::int64_t before, std::int64_t after) const;
  // How many of the next tokens of every sample are computed with so many tokens in all.
  std::int64_t n_affordable(const Request& request, std::int64_t before, std::int64_t n_tokens,
                            std::int64_t budget) const;
  // Pairs of tokens that attention looks at on the way.
  double n_pairs(const Request& request, std::int64_t before, std::int64_t after) const;
  // Blocks that are copied where samples go apart on the way; a block of all layers is one.
  std::int64_t n_copies(const Request& request, std::int64_t before, std::int64_t after) const;

 private:
  std::int64_t shared_tokens(const Request& request) const;
  bool is_apart(const Request& request, std::int64_t n_tokens) const;
};

}  // namespace memscope::serving
