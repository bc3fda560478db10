// The caching allocator's arithmetic: rounding, segment sizes and the split rule.
// Source: c10/cuda/CUDACachingAllocator.cpp (round_size, get_allocation_size, should_split) and
// c10/core/AllocatorConfig.cpp, behaviour as tested on 2.6 to 2.15.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace memscope::caching {

using Bytes = std::int64_t;
using Address = std::int64_t;

inline constexpr Bytes kMinBlockSize = 512;
inline constexpr Bytes kSmallSize = Bytes{1} << 20;  // the largest rounded request that a small pool serves
inline constexpr Bytes kSmallBuffer = Bytes{2} << 20;
inline constexpr Bytes kLargeBuffer = Bytes{20} << 20;
inline constexpr Bytes kMinLargeAlloc = Bytes{10} << 20;
inline constexpr Bytes kRoundLarge = Bytes{2} << 20;
inline constexpr Bytes kUnlimited = std::numeric_limits<Bytes>::max();
inline constexpr std::size_t kRoundUpPowerOfTwoIntervals = 16;

// Power-of-two divisions by interval of sizes (below 2 MiB, 2 MiB, ..., from 32 GiB), 0 for none.
using RoundupDivisions = std::array<std::int64_t, kRoundUpPowerOfTwoIntervals>;

constexpr Bytes round_up(Bytes n_bytes, Bytes multiple) { return (n_bytes + multiple - 1) / multiple * multiple; }

constexpr int floor_log2(Bytes n) {
  return n < 1 ? 0 : static_cast<int>(std::bit_width(static_cast<std::uint64_t>(n))) - 1;
}

constexpr std::int64_t divisions_of(Bytes size, const RoundupDivisions& divisions) {
  const int interval = std::clamp(floor_log2(size) - 20, 0, static_cast<int>(kRoundUpPowerOfTwoIntervals) - 1);
  return divisions[static_cast<std::size_t>(interval)];
}

constexpr Bytes roundup_power2_next_division(Bytes size, std::int64_t n_divisions) {
  const Bytes power = Bytes{1} << floor_log2(size);
  if (size == power) {
    return size;
  }
  const Bytes step = power >> floor_log2(n_divisions);
  return step == 0 ? power << 1 : round_up(size, step);
}

// What a request becomes before a block is looked for.
constexpr Bytes round_size(Bytes size, const RoundupDivisions& divisions) {
  if (size < kMinBlockSize) {
    return kMinBlockSize;
  }
  const std::int64_t n_divisions = divisions_of(size, divisions);
  if (n_divisions > 1 && size > kMinBlockSize * n_divisions) {
    return roundup_power2_next_division(size, n_divisions);
  }
  return round_up(size, kMinBlockSize);
}

// Bytes of the cudaMalloc that a rounded request leads to.
constexpr Bytes get_allocation_size(Bytes size, Bytes large_segment_size) {
  if (size <= kSmallSize) {
    return kSmallBuffer;
  }
  return size < kMinLargeAlloc ? large_segment_size : round_up(size, kRoundLarge);
}

// Whether a free block is split for a rounded request, or handed out whole.
constexpr bool should_split(Bytes block_size, Bytes size, Bytes max_split_size, bool expandable_segments) {
  const Bytes remaining = block_size - size;
  if (size <= kSmallSize || expandable_segments) {
    return remaining >= kMinBlockSize;
  }
  return size < max_split_size && remaining > kSmallSize;
}

}  // namespace memscope::caching
