#include "serving/tensors.h"

#include <algorithm>
#include <numeric>
#include <span>
#include <utility>

#include "checked.h"

namespace memscope::serving {
namespace {

// What all sizes are multiples of.
std::int64_t granularity_of(const std::vector<TensorShape>& shapes) {
  std::int64_t n_bytes = 0;
  for (const TensorShape& shape : shapes) {
    n_bytes = std::gcd(n_bytes, shape.token_bytes);
  }
  return n_bytes;
}

}  // namespace

Tensors::Tensors(Rules rules, std::int64_t capacity, bool is_padded, std::vector<TensorShape> shapes,
                 std::size_t n_requests, std::int64_t unit_bytes)
    : Manager(std::move(rules), capacity, is_padded),
      n_tensors_(shapes.size()),
      unit_bytes_(unit_bytes),
      allocator_(capacity * unit_bytes, granularity_of(shapes)),
      caches_(n_requests) {
  for (const TensorShape& shape : shapes) {
    largest_units_ = std::max(largest_units_, shape.token_bytes / unit_bytes);
    if (!alike_.empty() && alike_.back().shape == shape) {
      ++alike_.back().end;
    } else {
      alike_.push_back({alike_.empty() ? 1 : alike_.back().end + 1, shape});
    }
  }
}

TensorCounts Tensors::tensor_counts() const {
  return {allocator_.peak_reserved_bytes(), allocator_.num_alloc_retries()};
}

bool Tensors::holds_batch(std::int64_t n_sequences, std::int64_t n_tokens) const {
  return n_sequences * rules().held.at(as_index(n_tokens)) + n_tokens * largest_units_ <= capacity();
}

// The longest running request needs a second copy of a tensor while it is made longer.
bool Tensors::admit(Request& request, const Start& start) {
  const std::int64_t length = request.known_tokens() + request.pad_tokens;
  const std::int64_t needed = request.n_samples * rules().held.at(as_index(length));
  return needed + start.longest_running * largest_units_ <= free_units();
}

bool Tensors::take(const Request& request, std::int64_t n_tokens) {
  Cache& cache = caches_.at(request.number);
  cache.blocks.resize(n_tensors_, TensorAllocator::kNoBlock);
  const std::int64_t old = request.computed_tokens > 0 ? request.computed_tokens + request.pad_tokens : 0;
  const std::int64_t added = n_tokens + request.pad_tokens - old;
  for (const Alike& alike : alike_) {
    if (cache.n_grown >= alike.end) {
      continue;
    }
    const auto [token_bytes, window] = alike.shape;
    const std::int64_t kept = window == 0 ? old : std::min(old, window - 1);
    const std::span<BlockId> blocks = std::span(cache.blocks).subspan(cache.n_grown, alike.end - cache.n_grown);
    cache.n_grown += allocator_.replace(blocks, request.n_samples * (kept + added) * token_bytes);
    if (cache.n_grown < alike.end) {
      return false;
    }
  }
  cache.n_grown = 0;
  usage_.taken = allocator_.active_bytes() / unit_bytes_;
  return true;
}

void Tensors::give_back(const Request& request) {
  Cache& cache = caches_.at(request.number);
  for (const BlockId block : cache.blocks) {
    if (block != TensorAllocator::kNoBlock) {
      allocator_.free(block);
    }
  }
  cache = {};
  usage_.taken = allocator_.active_bytes() / unit_bytes_;
}

}  // namespace memscope::serving
