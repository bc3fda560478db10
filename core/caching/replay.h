// A program's requests served by an allocator, in one loop for all of them.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <utility>
#include <vector>

#include "caching/block_allocator.h"
#include "checked.h"
#include "huge_pages.h"
#include "wide_sum.h"

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
  kTry = 7,  // a request that may fail, and that is given back at once where it is served
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
  Checked<const std::int32_t> row;
  Checked<const std::int32_t> dropped_pool;
};

// Bytes before the first call and after each that was served or failed: allocated, active, requested and reserved. Or,
// where only the peak is kept, those of the first moment with the most reserved bytes.
class UsageSeries {
 public:
  static constexpr std::size_t kColumns = 4;

  // The memory is not filled: what is never written takes no room.
  UsageSeries(std::size_t n_calls, bool keeps_peak_only)
      : keeps_peak_only_(keeps_peak_only),
        stride_(keeps_peak_only ? 1 : n_calls + 1),
        values_(std::make_unique_for_overwrite<Bytes[]>(kColumns * stride_)) {
    ask_for_huge_pages(values_.get(), kColumns * stride_ * sizeof(Bytes));
  }

  // At most once more than there are calls.
  void append(const DeviceStats& stats) {
    const bool is_peak = n_seen_ == 0 || stats.reserved_bytes.current > highest_reserved_;
    if (is_peak) {
      highest_reserved_ = stats.reserved_bytes.current;
      peak_moment_ = n_seen_;
    }
    const Bytes unused = stats.reserved_bytes.current - stats.active_bytes.current;
    largest_unused_ = std::max(largest_unused_, unused);
    unused_.add(unused);
    if (is_peak || !keeps_peak_only_) {
      const Checked<Bytes> values(values_.get(), kColumns * stride_);
      const std::size_t moment = keeps_peak_only_ ? 0 : n_seen_;
      values[moment] = stats.allocated_bytes.current;
      values[moment + stride_] = stats.active_bytes.current;
      values[moment + 2 * stride_] = stats.requested_bytes.current;
      values[moment + 3 * stride_] = stats.reserved_bytes.current;
    }
    ++n_seen_;
  }

  // Moments before the first one with the most reserved bytes.
  std::size_t peak_moment() const { return peak_moment_; }

  // Reserved bytes that were not in use: at the most, summed over all moments, and the number of those.
  Bytes largest_unused() const { return largest_unused_; }
  const WideSum& sum_of_unused() const { return unused_; }
  std::size_t n_seen() const { return n_seen_; }

  // How many moments each column has, and how far apart the columns lie in the memory.
  std::size_t size() const { return keeps_peak_only_ ? 1 : n_seen_; }
  std::size_t stride() const { return stride_; }
  std::unique_ptr<Bytes[]> take() { return std::move(values_); }

 private:
  bool keeps_peak_only_;
  std::size_t stride_;
  std::size_t n_seen_ = 0;
  std::size_t peak_moment_ = 0;
  Bytes highest_reserved_ = 0;
  Bytes largest_unused_ = 0;
  WideSum unused_;
  std::unique_ptr<Bytes[]> values_;
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
    case Op::kTry:
      if (Block* const block = model.malloc(as_index(allocations.pair[row]), allocations.requested_size[row])) {
        model.free(*block, false);
      }
      return true;
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
Served replay(Model& model, const Allocations& allocations, const Calls& calls, bool keeps_peak_only) {
  if (model.rows.size() < allocations.requested_size.size()) {
    model.rows.reserve(allocations.requested_size.size());
    ask_for_huge_pages(model.rows.data(), model.rows.capacity() * sizeof(Row));
    model.rows.resize(allocations.requested_size.size());
  }
  Served served{UsageSeries(calls.op.size(), keeps_peak_only), std::nullopt};
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
