#include "serving/rules.h"

#include <algorithm>

#include "checked.h"

namespace memscope::serving {
namespace {

std::int64_t at(const std::vector<std::int64_t>& table, std::int64_t n_tokens) { return table.at(as_index(n_tokens)); }

double triangle(std::int64_t n) { return static_cast<double>(n * (n + 1)) / 2; }

}  // namespace

std::int64_t Rules::n_sequences(const Request& request, std::int64_t n_tokens) const {
  return shares_samples && n_tokens <= request.prompt_tokens ? 1 : request.n_samples;
}

// Tokens of a prompt that its samples go on sharing: those in full blocks.
std::int64_t Rules::shared_tokens(const Request& request) const {
  return request.prompt_tokens / private_tokens * private_tokens;
}

// Whether samples that share a prompt have become sequences of their own.
bool Rules::is_apart(const Request& request, std::int64_t n_tokens) const {
  return request.n_samples > 1 && shares_samples && n_tokens > request.prompt_tokens;
}

std::int64_t Rules::saved_units(const Request& request, std::int64_t n_tokens) const {
  if (!is_apart(request, n_tokens)) {
    return 0;
  }
  const std::int64_t shared = shared_tokens(request);
  std::int64_t units = 0;
  for (const Window& window : windows) {
    const std::int64_t passed = window.tokens == 0 ? 0 : std::max<std::int64_t>(0, n_tokens - window.tokens);
    units += window.units * std::max<std::int64_t>(0, shared - passed / private_tokens * private_tokens);
  }
  return units * (request.n_samples - 1);
}

std::int64_t Rules::held_units(const Request& request, std::int64_t n_tokens) const {
  const std::int64_t units = n_sequences(request, n_tokens) * at(held, n_tokens);
  if (!is_apart(request, n_tokens)) {
    return units;
  }
  const std::int64_t shared = shared_tokens(request);
  std::int64_t twice = 0;
  for (const Window& window : windows) {
    const std::int64_t passed = window.tokens == 0 ? 0 : std::max<std::int64_t>(0, n_tokens - window.tokens);
    twice += window.units * std::max<std::int64_t>(0, shared - passed);
  }
  return units - twice * (request.n_samples - 1);
}

std::int64_t Rules::read_units(const Request& request, std::int64_t n_tokens) const {
  return n_tokens == 0 ? 0 : n_sequences(request, n_tokens) * at(held, n_tokens + request.pad_tokens);
}

std::int64_t Rules::taken_units(const Request& request, std::int64_t n_tokens) const {
  return n_sequences(request, n_tokens) * at(taken, n_tokens) - saved_units(request, n_tokens);
}

std::int64_t Rules::n_computed(const Request& request, std::int64_t before, std::int64_t after) const {
  if (request.n_samples == 1 || !shares_samples) {
    return request.n_samples * (after - before);
  }
  const std::int64_t prompt = request.prompt_tokens;
  const std::int64_t once = std::min(after, prompt) - std::min(before, prompt);
  return once + request.n_samples * (std::max(after, prompt) - std::max(before, prompt));
}

std::int64_t Rules::n_affordable(const Request& request, std::int64_t before, std::int64_t n_tokens,
                                 std::int64_t budget) const {
  if (request.n_samples == 1 || !shares_samples) {
    return std::min(n_tokens, budget / request.n_samples);
  }
  const std::int64_t once = std::max<std::int64_t>(0, request.prompt_tokens - before);
  return std::min(n_tokens, budget <= once ? budget : once + (budget - once) / request.n_samples);
}

double Rules::n_pairs(const Request& request, std::int64_t before, std::int64_t after) const {
  const std::int64_t first = before > 0 ? before + request.pad_tokens : 0, last = after + request.pad_tokens;
  const auto n_samples = static_cast<double>(request.n_samples);
  if (request.n_samples == 1 || !shares_samples) {
    return n_samples * (triangle(last) - triangle(first));
  }
  const std::int64_t prompt = request.prompt_tokens;
  const double once = triangle(std::min(last, prompt)) - triangle(std::min(first, prompt));
  return once + n_samples * (triangle(std::max(last, prompt)) - triangle(std::max(first, prompt)));
}

std::int64_t Rules::n_copies(const Request& request, std::int64_t before, std::int64_t after) const {
  const bool go_apart = before <= request.prompt_tokens && is_apart(request, after);
  return go_apart && shared_tokens(request) < request.prompt_tokens ? request.n_samples - 1 : 0;
}

}  // namespace memscope::serving
