// A program's requests served by an allocator, in one loop for all of them.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <stdexcept>
#include <utility>
#include <vector>

#include "caching/block_allocator.h"
#include "checked.h"

namespace memscope::caching {

// What the program does. Python knows them as memscope._core.caching.Op.
enum class Op : std::int8_t {
  kNone = 0,
  kMalloc = 1,
  kFree = 2,  // one whose request, or whose completion, is not among the events: it completes at once
  kFreeLater = 3,
  kComplete = 4,
  kEmptyCache = 5,
  kEmptyPool = 6,
};

template <typename Model>
concept AllocatorModel =
    std::derived_from<Model, BlockAllocator> && requires(Model model, Block& block, std::size_t pair, Bytes size) {
      { model.malloc(pair, size) } -> std::same_as<Block*>;
      { model.free_block(block) };
      { model.empty_cache() };
      { model.next_part(block) } -> std::same_as<Block*>;
      { model.address_of(block) } -> std::same_as<Address>;
    };

// One that knows private pools, whose unused memory can be given back alone, or for good once their owner is gone.
template <typename Model>
concept HasPrivatePools = AllocatorModel<Model> && requires(Model model, std::int64_t pool_id) {
  { model.release_pool(pool_id) };
  { model.make_releasable(pool_id) };
};

// Sizes and (pool, stream) pairs of the program's allocations.
struct Allocations {
  Int64s requested_size;
  Int64s pair;
};

// What the program did, in order: the act, and the allocation that it is about (for kEmptyPool: the pool). Then the
// pool whose owner is gone after it, -1 for none.
struct Calls {
  Checked<const std::int8_t> op;
  Int64s row;
  Int64s dropped_pool;
};

// Bytes before the first call and after each: allocated, active, requested, reserved; one row of moments for each. Where
// not every call is noted, there is one moment: after the last.
class UsageSeries {
 public:
  static constexpr std::size_t kRows = 4;

  UsageSeries(std::size_t n_calls, bool notes_every_call)
      : notes_every_call_(notes_every_call), stride_(notes_every_call ? n_calls + 1 : 1), values_(kRows * stride_) {}

  // At most once more than there are calls.
  void append(const DeviceStats& stats) {
    const Checked<Bytes> values(values_);
    n_moments_ = notes_every_call_ ? n_moments_ : 0;
    values[n_moments_] = stats.allocated_bytes.current;
    values[n_moments_ + stride_] = stats.active_bytes.current;
    values[n_moments_ + 2 * stride_] = stats.requested_bytes.current;
    values[n_moments_ + 3 * stride_] = stats.reserved_bytes.current;
    ++n_moments_;
  }

  // The rows one after the other, without the moments that were never reached.
  std::vector<Bytes> take() {
    for (std::size_t i = 1; n_moments_ < stride_ && i < kRows; ++i) {
      const auto row = values_.begin() + static_cast<std::ptrdiff_t>(i * stride_);
      std::copy(row, row + static_cast<std::ptrdiff_t>(n_moments_),
                values_.begin() + static_cast<std::ptrdiff_t>(i * n_moments_));
    }
    values_.resize(kRows * n_moments_);
    return std::move(values_);
  }

 private:
  bool notes_every_call_;
  std::size_t stride_;
  std::size_t n_moments_ = 0;
  std::vector<Bytes> values_;
};

struct Served {
  UsageSeries usage;                       // up to the call that failed, if one did
  std::optional<std::size_t> failed_call;  // the request that could not be served: nothing was served after it
};

template <AllocatorModel Model>
void serve_complete(Model& model, Row& row) {
  // A wait for all streams in between has completed the free already.
  if (row.block != nullptr && row.n_syncs == model.stats.num_sync_all_streams &&
      row.block->state == BlockState::kPending) {
    model.complete_free(*row.block);
  }
  row.block = nullptr;
}

template <AllocatorModel Model>
void serve_free(Model& model, Row& row, bool waits) {
  if (row.block == nullptr) {
    return;
  }
  if (row.block->state != BlockState::kAllocated) {
    // The request for it came before the first event.
    serve_complete(model, row);
    return;
  }
  Block& block = *row.block;
  row = {waits ? row.block : nullptr, model.stats.num_sync_all_streams};
  model.free(block, waits);
}

// False if it is a request that cannot be served.
template <AllocatorModel Model>
bool serve_call(Model& model, const Allocations& allocations, Op op, std::int64_t row) {
  const Checked<Row> rows(model.rows);
  switch (op) {
    case Op::kNone:
      return true;
    case Op::kMalloc: {
      Block* const block = model.malloc(as_index(allocations.pair[row]), allocations.requested_size[row]);
      rows[row].block = block;
      return block != nullptr;
    }
    case Op::kFree:
    case Op::kFreeLater:
      serve_free(model, rows[row], op == Op::kFreeLater);
      return true;
    case Op::kComplete:
      serve_complete(model, rows[row]);
      return true;
    case Op::kEmptyCache:
      model.empty_cache();
      return true;
    case Op::kEmptyPool:
      if constexpr (HasPrivatePools<Model>) {
        model.release_pool(row);
      }
      return true;
  }
  throw std::invalid_argument("there is no call of that number");
}

// The allocation that a later call is about, nullptr for none.
template <AllocatorModel Model>
const Row* row_ahead(const Model& model, const Calls& calls, std::size_t i) {
  const std::size_t row = i < calls.row.size() ? static_cast<std::size_t>(calls.row.span()[i]) : model.rows.size();
  return row < model.rows.size() ? &model.rows[row] : nullptr;
}

// Serves calls up to the first request that cannot be served. O(log n) in the free blocks for each.
template <AllocatorModel Model>
Served replay(Model& model, const Allocations& allocations, const Calls& calls, bool notes_every_call) {
  if (model.rows.size() < allocations.requested_size.size()) {
    model.rows.resize(allocations.requested_size.size());
  }
  Served served{UsageSeries(calls.op.size(), notes_every_call), std::nullopt};
  served.usage.append(model.stats);
  // With many blocks, most of the time of a free is spent waiting for its row, and then for its block, so that both are
  // asked for some calls before; with few they are near. In the loop itself, since gcc takes a function that does
  // nothing else for one without effect.
  constexpr std::size_t kFar = 16, kNear = 8, kCallsBetweenLooks = 1024, kManyBlocks = 16384;
  [[maybe_unused]] bool looks_ahead = false;
  for (std::size_t i = 0; i < calls.op.size(); ++i) {
#if defined(__GNUC__)
    if (i % kCallsBetweenLooks == 0) {
      looks_ahead = model.blocks.n_used() > kManyBlocks;
    }
    if (looks_ahead) {
      const Row* const near = row_ahead(model, calls, i + kNear);
      __builtin_prefetch(row_ahead(model, calls, i + kFar));
      __builtin_prefetch(near == nullptr ? nullptr : near->block);
    }
#endif
    if (!serve_call(model, allocations, static_cast<Op>(calls.op[i]), calls.row[i])) {
      served.failed_call = i;
      served.usage.append(model.stats);
      break;
    }
    if constexpr (HasPrivatePools<Model>) {
      if (calls.dropped_pool[i] >= 0) {
        model.make_releasable(calls.dropped_pool[i]);
      }
    }
    served.usage.append(model.stats);
  }
  return served;
}

}  // namespace memscope::caching
