// No caching at all: every request is a cudaMalloc, every free a cudaFree.
//
// Exact is the number of calls. A model is what the driver makes of a size: requests of half a page or more get whole
// pages of their own, smaller ones share pages, best fit among their free ranges, rounded to the alignment that
// cudaMalloc promises (CUDA programming guide: at least 256 bytes).
#pragma once

#include "models/carving.h"

namespace memscope::models {

struct CudaMallocParameters {
  Bytes alignment;
  Bytes page_size;
};

class CudaMalloc : public Allocator<CudaMalloc> {
 public:
  using Parameters = CudaMallocParameters;

  CudaMalloc(const AllocatorOptions& options, const Parameters& parameters)
      : Allocator(options), parameters_(parameters) {}

  Block* malloc(std::size_t, Bytes requested_size) {
    Bytes size = round_up(requested_size, parameters_.alignment);
    const bool is_large = 2 * size >= parameters_.page_size;
    if (is_large) {
      size = round_up(size, parameters_.page_size);
    }
    // The driver knows no streams: all of them share the pools of the first one.
    BlockPool& pool = get_pool(0, is_large);
    Block* block = is_large ? nullptr : take_best_fit(pool, size);
    if (block != nullptr) {
      ++stats.num_device_alloc;
    } else {
      block = add_pages(pool, is_large ? size : parameters_.page_size);
    }
    return block == nullptr ? out_of_memory(size, pool)
                            : count_allocated(take_front(*this, *block, size), requested_size);
  }

  void free_block(Block& block) {
    Block& whole = put_back(*this, block, *block.pool);
    if (whole.is_split()) {
      ++stats.num_device_free;
    } else {
      release_block(whole);
    }
  }

  void empty_cache() { synchronize_and_free_events(); }

 private:
  Block* add_pages(BlockPool& pool, Bytes size) {
    if (!driver.has(size) && first_pending != nullptr) {
      // cudaFree waits for the device, so that nothing would still be pending.
      synchronize_and_free_events();
      ++stats.num_alloc_retries;
    }
    return driver.has(size) ? &add_segment(pool, driver.place(size), size) : nullptr;
  }

  const Parameters parameters_;
};

}  // namespace memscope::models
