// A request to the engine: what it asks for, and how far it is.
#pragma once

#include <cstddef>
#include <cstdint>

namespace memscope::serving {

// All samples of a request run, wait and are put back together, and have as many tokens.
struct Request {
  std::size_t number = 0;  // in order of arrival
  std::int64_t arrival_us = 0;
  std::int64_t prompt_tokens = 0;
  std::int64_t output_tokens = 0;
  std::int64_t n_samples = 1;
  bool is_refused = false;

  bool is_swapped = false;
  std::int64_t computed_tokens = 0;   // held of each sample
  std::int64_t generated_tokens = 0;  // of each sample
  // Before its first token, to make its prompt as long as the batch's longest, and after its last one.
  std::int64_t pad_tokens = 0;
  std::int64_t first_token_us = -1;

  std::int64_t known_tokens() const { return prompt_tokens + generated_tokens; }
  // The last token that comes out is never computed on.
  std::int64_t final_tokens() const { return prompt_tokens + output_tokens - 1; }
};

}  // namespace memscope::serving
