// A vector in pages: it grows without ever holding its content twice, as std::vector does while it moves.
#pragma once

#include <algorithm>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "checked.h"
#include "snapshot/budget.h"

namespace memscope::snapshot {

// Every index is checked; every page is asked of the budget first.
template <typename T>
class PagedVector {
 public:
  static constexpr std::size_t kPageRows = std::bit_floor((std::size_t{1} << 16) / sizeof(T));
  static constexpr std::size_t kPageBytes = kPageRows * sizeof(T);

  explicit PagedVector(std::shared_ptr<Budget> budget) : budget_(std::move(budget)) {}

  std::size_t size() const { return size_; }

  template <std::integral Integer>
  const T& operator[](Integer index) const {
    return *place(static_cast<std::size_t>(index));
  }

  template <std::integral Integer>
  T& operator[](Integer index) {
    return *place(static_cast<std::size_t>(index));
  }

  void push_back(const T& value) {
    append(1, [&](std::span<T> piece) { piece.front() = value; });
  }

  void append(std::span<const T> values) {
    append(values.size(), [from = values.begin()](std::span<T> piece) mutable {
      std::copy_n(from, piece.size(), piece.begin());
      from += static_cast<std::ptrdiff_t>(piece.size());
    });
  }

  // Room for n more, which `fill` is given in contiguous pieces and their order.
  template <typename Fill>
  void append(std::size_t n, Fill&& fill) {
    while (n > 0) {
      const std::size_t at = size_ % kPageRows;
      if (at == 0) {
        add_page();
      }
      const std::size_t n_here = std::min(n, kPageRows - at);
      fill(std::span<T>(pages_.back().get() + at, n_here));
      size_ += n_here;
      n -= n_here;
    }
  }

  // Hands [start, start + n) to `use`, in contiguous pieces and their order.
  template <typename Use>
  void each_piece(std::size_t start, std::size_t n, Use&& use) const {
    if (start > size_ || n > size_ - start) {
      throw_out_of_range(start + n, size_);
    }
    while (n > 0) {
      const std::size_t at = start % kPageRows;
      const std::size_t n_here = std::min(n, kPageRows - at);
      use(std::span<const T>(pages_[start / kPageRows].get() + at, n_here));
      start += n_here;
      n -= n_here;
    }
  }

  bool has_at(std::size_t start, std::span<const T> values) const {
    bool is_same = true;
    each_piece(start, values.size(), [&](std::span<const T> piece) {
      is_same = is_same && std::equal(piece.begin(), piece.end(), values.begin());
      values = values.subspan(piece.size());
    });
    return is_same;
  }

 private:
  T* place(std::size_t index) const {
    if (index >= size_) [[unlikely]] {
      throw_out_of_range(index, size_);
    }
    return pages_[index / kPageRows].get() + index % kPageRows;
  }

  void add_page() {
    budget_->take(kPageBytes);
    pages_.push_back(std::make_unique_for_overwrite<T[]>(kPageRows));
  }

  std::shared_ptr<Budget> budget_;
  std::vector<std::unique_ptr<T[]>> pages_;
  std::size_t size_ = 0;
};

}  // namespace memscope::snapshot
