// Free blocks by address, for allocators that take the first one that fits.
//
// Beside the keys of each chunk its largest size is kept, and that of each group of chunks: the first fit is found by a
// look at the groups, at one group's chunks and at one chunk's keys, which stays cheap at 100,000s of blocks. That of a
// tree would take a step for each level, and each of them misses the cache there.
#pragma once

#include <algorithm>
#include <cstddef>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "caching/block.h"
#include "caching/sorted_chunks.h"

namespace memscope::models {

// The largest size in each chunk, and in each group of neighbouring chunks.
class LargestSizes {
 public:
  void opened(std::size_t chunk) {
    of_chunk_.insert(of_chunk_.begin() + static_cast<std::ptrdiff_t>(chunk), 0);
    regroup(chunk);
  }

  void closed(std::size_t chunk) {
    of_chunk_.erase(of_chunk_.begin() + static_cast<std::ptrdiff_t>(chunk));
    regroup(chunk);
  }

  template <typename Keys>
  void changed(std::size_t chunk, const Keys& keys) {
    caching::Bytes largest = 0;
    for (const auto& key : keys) {
      largest = std::max(largest, key.size);
    }
    const caching::Bytes before = std::exchange(of_chunk_[chunk], largest);
    caching::Bytes& of_group = of_group_[chunk / kGroup];
    if (largest >= of_group) {
      of_group = largest;
    } else if (before == of_group) {
      of_group = largest_of_group(chunk / kGroup);
    }
  }

  // The first chunk with a size of at least that.
  std::optional<std::size_t> first_from(caching::Bytes size) const {
    const auto fits = [size](caching::Bytes largest) { return largest >= size; };
    const auto group = std::find_if(of_group_.begin(), of_group_.end(), fits);
    if (group == of_group_.end()) {
      return std::nullopt;
    }
    const auto first = of_chunk_.begin() + (group - of_group_.begin()) * static_cast<std::ptrdiff_t>(kGroup);
    return static_cast<std::size_t>(std::find_if(first, of_chunk_.end(), fits) - of_chunk_.begin());
  }

 private:
  static constexpr std::size_t kGroup = 64;

  caching::Bytes largest_of_group(std::size_t group) const {
    const auto first = of_chunk_.begin() + static_cast<std::ptrdiff_t>(group * kGroup);
    const auto last = of_chunk_.begin() + static_cast<std::ptrdiff_t>(std::min((group + 1) * kGroup, of_chunk_.size()));
    return *std::max_element(first, last);
  }

  // After chunks moved, from one on.
  void regroup(std::size_t from_chunk) {
    of_group_.resize((of_chunk_.size() + kGroup - 1) / kGroup);
    for (std::size_t group = from_chunk / kGroup; group < of_group_.size(); ++group) {
      of_group_[group] = largest_of_group(group);
    }
  }

  std::vector<caching::Bytes> of_chunk_;
  std::vector<caching::Bytes> of_group_;
};

class FirstFitBlocks {
 public:
  void insert(caching::Block& block) { keys_.insert({block.address, block.size, &block}); }
  // Its address must be what it was when it was put in.
  void erase(const caching::Block& block) { keys_.erase(key_at(block.address)); }

  // The block of at least that size at the lowest address, nullptr for none.
  caching::Block* first_fit(caching::Bytes size) const {
    const std::optional<std::size_t> chunk = keys_.notes().first_from(size);
    if (!chunk) {
      return nullptr;
    }
    const auto keys = keys_.chunk(*chunk);
    const auto found = std::find_if(keys.begin(), keys.end(), [size](const Key& key) { return key.size >= size; });
    return found == keys.end() ? nullptr : found->block;
  }

  // The block at the highest address below one, and that at the lowest address from one on.
  caching::Block* last_below(caching::Address address) const { return block_of(keys_.last_before(key_at(address))); }
  caching::Block* first_from(caching::Address address) const { return block_of(keys_.lower_bound(key_at(address))); }

  // Calls visit(block) in order; the set must not be changed meanwhile.
  template <typename Visit>
  void for_each(Visit&& visit) const {
    keys_.for_each([&](const Key& key) { visit(*key.block); });
  }

 private:
  struct Key {
    caching::Address address;
    caching::Bytes size;
    caching::Block* block;

    friend bool operator<(const Key& a, const Key& b) { return a.address < b.address; }
  };

  static Key key_at(caching::Address address) { return {address, 0, nullptr}; }
  static caching::Block* block_of(const Key* key) { return key == nullptr ? nullptr : key->block; }

  caching::SortedChunks<Key, LargestSizes> keys_;
};

}  // namespace memscope::models
