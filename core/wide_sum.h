// Sums that 64 bits do not hold, exactly.
#pragma once

#include <cstdint>

namespace memscope {

class WideSum {
 public:
  // Add a product of two numbers that are not negative.
  void add(std::int64_t first, std::int64_t second) {
    const auto a = static_cast<std::uint64_t>(first), b = static_cast<std::uint64_t>(second);
    const std::uint64_t low = (a & kLow32) * (b & kLow32), cross = (a >> 32) * (b & kLow32) + (low >> 32);
    const std::uint64_t other = (a & kLow32) * (b >> 32) + (cross & kLow32);
    const std::uint64_t product_low = (other << 32) | (low & kLow32);
    low_ += product_low;
    high_ += (a >> 32) * (b >> 32) + (cross >> 32) + (other >> 32) + (low_ < product_low ? 1 : 0);
  }

  // Add a number that is not negative.
  void add(std::int64_t value) {
    const auto a = static_cast<std::uint64_t>(value);
    low_ += a;
    high_ += low_ < a ? 1 : 0;
  }

  std::uint64_t high() const { return high_; }
  std::uint64_t low() const { return low_; }

 private:
  static constexpr std::uint64_t kLow32 = 0xFFFFFFFF;
  std::uint64_t high_ = 0;
  std::uint64_t low_ = 0;
};

}  // namespace memscope
