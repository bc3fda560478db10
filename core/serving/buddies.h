// Binary buddies: powers of two of granules, the lowest free block of the smallest size that fits.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <set>

namespace memscope::serving {

class Buddies {
 public:
  // Memory is cut into the largest powers of two that it holds, the largest first.
  explicit Buddies(std::int64_t n_granules);

  // The power of two that holds so many granules.
  static int order_of(std::int64_t n_granules);
  // Address, in granules, of a block of that power of two; none if there is no free one that is large enough.
  std::optional<std::int64_t> take(int order);
  // Give a block back, and join it with its buddy as long as that is free.
  void give_back(int order, std::int64_t address);

 private:
  static constexpr int kMaxOrders = 62;
  std::array<std::set<std::int64_t>, kMaxOrders> free_;
};

}  // namespace memscope::serving
