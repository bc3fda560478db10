// Views of arrays whose every index is checked, in release builds too.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace memscope {

// Index outside of an array: a defect of the core or an input that was not checked; never undefined behaviour.
[[noreturn]] inline void throw_out_of_range(std::size_t index, std::size_t size) {
  throw std::out_of_range("index " + std::to_string(index) + " of an array of " + std::to_string(size));
}

// A number from an input as an index or a size: a negative one is refused.
template <std::integral Integer>
constexpr std::size_t as_index(Integer value) {
  if (!std::in_range<std::size_t>(value)) {
    throw_out_of_range(std::numeric_limits<std::size_t>::max(), 0);
  }
  return static_cast<std::size_t>(value);
}

// A sum that wraps around instead of being undefined: where a range ends that an input claims.
constexpr std::int64_t wrapping_add(std::int64_t a, std::int64_t b) {
  return static_cast<std::int64_t>(static_cast<std::uint64_t>(a) + static_cast<std::uint64_t>(b));
}

// An array that belongs to somebody else. Indices of any integer type are taken; a wrong one throws std::out_of_range.
template <typename T>
class Checked {
 public:
  constexpr Checked() = default;
  constexpr Checked(std::span<T> values) : values_(values) {}
  constexpr Checked(T* data, std::size_t size) : values_(data, size) {}

  template <std::integral Integer>
  constexpr T& operator[](Integer index) const {
    // A negative index becomes a huge one, which is outside too.
    const auto i = static_cast<std::size_t>(index);
    if (i >= values_.size()) [[unlikely]] {
      throw_out_of_range(i, values_.size());
    }
    return values_[i];
  }

  constexpr std::size_t size() const { return values_.size(); }
  constexpr bool empty() const { return values_.empty(); }
  constexpr auto begin() const { return values_.begin(); }
  constexpr auto end() const { return values_.end(); }
  constexpr std::span<T> span() const { return values_; }

 private:
  std::span<T> values_;
};

using Int64s = Checked<const std::int64_t>;

}  // namespace memscope
