#include "serving/tensors.h"

#include <algorithm>
#include <utility>

#include "checked.h"

namespace memscope::serving {
namespace {

constexpr std::size_t kPair = 0;  // of the default pool and stream, the only ones

caching::CachingOptions options_of(std::int64_t capacity_bytes) {
  caching::CachingOptions options;
  options.capacity = capacity_bytes;
  options.tie_rule = caching::TieRule::kSegmentAge;
  return options;
}

}  // namespace

Tensors::Tensors(Rules rules, std::int64_t capacity, bool is_padded, std::vector<TensorShape> shapes,
                 std::size_t n_requests, std::int64_t unit_bytes)
    : Manager(std::move(rules), capacity, is_padded),
      shapes_(std::move(shapes)),
      unit_bytes_(unit_bytes),
      allocator_(options_of(capacity * unit_bytes)),
      caches_(n_requests) {
  allocator_.add_pair(0, 0, false);
  for (const TensorShape& shape : shapes_) {
    largest_units_ = std::max(largest_units_, shape.token_bytes / unit_bytes);
  }
}

TensorCounts Tensors::tensor_counts() const {
  return {allocator_.stats.reserved_bytes.peak, allocator_.stats.num_alloc_retries};
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
  cache.blocks.resize(shapes_.size(), nullptr);
  const std::int64_t old = request.computed_tokens > 0 ? request.computed_tokens + request.pad_tokens : 0;
  const std::int64_t added = n_tokens + request.pad_tokens - old;
  for (; cache.n_grown < shapes_.size(); ++cache.n_grown) {
    const TensorShape& shape = shapes_[cache.n_grown];
    const std::int64_t kept = shape.window == 0 ? old : std::min(old, shape.window - 1);
    caching::Block* const longer =
        allocator_.malloc(kPair, request.n_samples * (kept + added) * shape.token_bytes);
    if (longer == nullptr) {
      return false;
    }
    caching::Block*& block = cache.blocks[cache.n_grown];
    if (block != nullptr) {
      allocator_.free(*block, false);
    }
    block = longer;
  }
  cache.n_grown = 0;
  usage_.taken = allocator_.stats.active_bytes.current / unit_bytes_;
  return true;
}

void Tensors::give_back(const Request& request) {
  Cache& cache = caches_.at(request.number);
  for (caching::Block* block : cache.blocks) {
    if (block != nullptr) {
      allocator_.free(*block, false);
    }
  }
  cache = {};
  usage_.taken = allocator_.stats.active_bytes.current / unit_bytes_;
}

}  // namespace memscope::serving
