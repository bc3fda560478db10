// Best fit with coalescing, as TensorFlow's and XLA's BFCAllocator does it where it may grow.
//
// Source: xla/tsl/framework/bfc_allocator.cc (read at 00df9ee). After that file are the rounding, the choice of a block
// (its bins of powers of two are searched upwards, each by size and address: a best fit over all), the rule that splits
// it, the growth of regions with its back-off, and the collection of unused regions before it gives up. A model is that
// all streams share one allocator without waiting for each other (TensorFlow computes on one stream), that the device's
// memory is the limit, and what an emptied cache does, which it does not know.
#pragma once

#include "models/carving.h"

namespace memscope::models {

struct BfcParameters {
  Bytes alignment;
  Bytes first_region_size;
  Bytes max_internal_fragmentation;  // a block is given whole where less than this, and less than half, would be left
  bool collects_regions;             // unused regions go back to the driver before a request fails
};

class Bfc : public Allocator<Bfc> {
 public:
  using Parameters = BfcParameters;

  Bfc(const AllocatorOptions& options, const Parameters& parameters)
      : Allocator(options), parameters_(parameters), next_region_size_(parameters.first_region_size) {
    add_pair(0, kNoStream, false);
  }

  Block* malloc(std::size_t, Bytes requested_size) {
    const Bytes size = round_up(requested_size, parameters_.alignment);
    Block* block = take_best_fit(pool(), size);
    if (block == nullptr) {
      block = extend(size);
    }
    if (block == nullptr) {
      block = retry(size);
    }
    if (block == nullptr) {
      return out_of_memory(size, pool());
    }
    if (block->size >= 2 * size || block->size - size >= parameters_.max_internal_fragmentation) {
      block = &take_front(*this, *block, size);
    }
    return count_allocated(*block, requested_size);
  }

  void free_block(Block& block) { put_back(*this, block, pool()); }

  void empty_cache() {
    synchronize_and_free_events();
    release_unused_segments(*this);
    Bytes size = parameters_.first_region_size;
    while (size <= stats.reserved_bytes.current) {
      size *= 2;
    }
    next_region_size_ = std::min(size, next_region_size_);
  }

 private:
  // Where regions stop to double, far beyond any device: unused regions may be collected again and again.
  static constexpr Bytes kMaxRegionSize = Bytes{1} << 50;

  BlockPool& pool() { return pools[0]; }

  // A new region of at least that size, in no set; nullptr if the driver has none.
  Block* extend(Bytes size) {
    const Bytes n_left = driver.n_left() / parameters_.alignment * parameters_.alignment;
    if (driver.is_limited() && size > n_left) {
      return nullptr;
    }
    const bool is_raised = size > next_region_size_;
    while (size > next_region_size_) {
      next_region_size_ *= 2;
    }
    Bytes region_size = driver.is_limited() ? std::min(next_region_size_, n_left) : next_region_size_;
    while (!driver.has(region_size)) {
      region_size = std::min(round_up(region_size * 9 / 10, parameters_.alignment),
                             region_size - parameters_.alignment);
      if (region_size < size) {
        return nullptr;
      }
    }
    if (!is_raised && next_region_size_ < kMaxRegionSize) {
      next_region_size_ *= 2;
    }
    return &add_segment(pool(), driver.place(region_size), region_size);
  }

  Block* retry(Bytes size) {
    synchronize_and_free_events();
    ++stats.num_alloc_retries;
    Block* const block = take_best_fit(pool(), size);
    return block == nullptr ? collect(size) : block;
  }

  // Gives unused regions back if the request then fits, and takes a region for it.
  Block* collect(Bytes size) {
    const Bytes n_unused = parameters_.collects_regions ? unused_segment_bytes(*this) : 0;
    if (n_unused == 0 || size > n_unused + driver.n_left()) {
      return nullptr;
    }
    release_unused_segments(*this);
    return extend(size);
  }

  const Parameters parameters_;
  Bytes next_region_size_;
};

}  // namespace memscope::models
