// Physical memory in handles of one size and virtual ranges over them: what the virtual-memory models count.
//
// The counters are those of the calls of the CUDA driver: cuMemCreate and cuMemRelease for each handle;
// cuMemAddressReserve and cuMemAddressFree for each range; cuMemMap and cuMemUnmap for each handle in a range, since a
// call maps one handle; cuMemSetAccess once for each range.
#pragma once

#include "caching/block_allocator.h"

namespace memscope::models {

// Physical memory that came from the driver, or went back to it.
inline void create_handles(caching::BlockAllocator& allocator, caching::Bytes n_bytes, std::int64_t n_handles) {
  allocator.driver.used += n_bytes;
  allocator.stats.num_device_alloc += n_handles;
  allocator.stats.reserved_bytes.increase(n_bytes);
}

inline void release_handles(caching::BlockAllocator& allocator, caching::Bytes n_bytes, std::int64_t n_handles) {
  allocator.driver.used -= n_bytes;
  allocator.stats.num_device_free += n_handles;
  allocator.stats.reserved_bytes.decrease(n_bytes);
}

// A virtual range that was reserved, mapped handle by handle and made accessible.
inline void count_mapped_range(caching::DeviceStats& stats, std::int64_t n_handles) {
  ++stats.num_reservations;
  stats.num_mapped_handles += n_handles;
  ++stats.num_map_calls;
}

// A virtual range that was unmapped handle by handle and given up.
inline void count_unmapped_range(caching::DeviceStats& stats, std::int64_t n_handles) {
  stats.num_unmapped_handles += n_handles;
  ++stats.num_unmap_calls;
  ++stats.num_reservations_dropped;
}

}  // namespace memscope::models
