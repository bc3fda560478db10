// Free blocks by size, for allocators whose requests are multiples of something: a list for each class of sizes, and a
// bitmap of the classes that are not empty.
//
// A class below kFineSizes is one size, a larger one the sizes of two mebibytes, the last all above. Lists are rings
// sorted by size and address, from a node of the class's own; they are short, and what is put in mostly belongs near
// their ends. Putting in and taking out touches two neighbours, where a sorted array or a tree searches.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace memscope::serving {

using Size = std::uint64_t;     // in units of 512 bytes, what PyTorch's allocator counts in; addresses too
using BlockId = std::uint32_t;  // a row of the blocks
using ClassId = std::uint32_t;

// Half a cache line. Neighbours are those in the segment; ring neighbours those in the list of free blocks.
struct TensorBlock {
  std::int64_t address = 0;
  Size size = 0;
  BlockId prev = 0;
  BlockId next = 0;
  BlockId ring_prev = 0;
  BlockId ring_next = 0;
};

inline bool is_before(const TensorBlock& a, const TensorBlock& b) {
  return a.size != b.size ? a.size < b.size : a.address < b.address;
}

class SizeClasses {
 public:
  static constexpr Size kFineSizes = Size{1} << 16;   // 32 MiB
  static constexpr Size kMostSizes = Size{1} << 28;   // 128 GiB: those above share the last class

  // Sizes are multiples of 2^shift, and none is above the largest; the rows from `first_node` on are the classes' own.
  SizeClasses(int shift, Size largest, BlockId first_node)
      : shift_(shift), n_fine_(static_cast<ClassId>(kFineSizes >> shift)),
        last_class_(uncapped_class_of(std::min(largest, kMostSizes))), first_node_(first_node),
        end_node_(first_node + last_class_ + 1),
        bits_(last_class_ / 64 + 1), words_(last_class_ / 4096 + 1) {}

  BlockId end_node() const { return end_node_; }

  void link_nodes(std::vector<TensorBlock>& blocks) const {
    for (BlockId node = first_node_; node < end_node_; ++node) {
      blocks.at(node).address = -1;
      blocks[node].ring_prev = blocks[node].ring_next = node;
    }
  }

  void insert(TensorBlock* blocks, BlockId id) {
    TensorBlock& block = blocks[id];
    const ClassId size_class = class_of(block.size);
    BlockId after = first_node_ + size_class, before = blocks[after].ring_prev;
    mark(size_class);
    const bool is_fine = size_class < n_fine_;
    while (is_fine ? block.address < blocks[before].address : is_before(block, blocks[before])) {
      after = before;
      before = blocks[before].ring_prev;
    }
    block.ring_prev = before;
    block.ring_next = after;
    blocks[before].ring_next = id;
    blocks[after].ring_prev = id;
  }

  void erase(TensorBlock* blocks, BlockId id) {
    const BlockId before = blocks[id].ring_prev, after = blocks[id].ring_next;
    blocks[after].ring_prev = before;
    blocks[before].ring_next = after;
    if (before == after) {
      unmark(class_of(blocks[id].size));
    }
  }

  // The block after one in its class; `none` if it is the last.
  BlockId next_in_class(const TensorBlock* blocks, BlockId id, BlockId none) const {
    const BlockId next = blocks[id].ring_next;
    return next >= end_node_ ? next : none;
  }

  // The first block of at least that size; `none` if there is none.
  BlockId lower_bound(const TensorBlock* blocks, Size size, BlockId none) const {
    ClassId size_class = class_of(size);
    if (size_class >= n_fine_ || size_class == last_class_) {
      const BlockId node = first_node_ + size_class;
      BlockId id = blocks[node].ring_next;
      while (id != node && blocks[id].size < size) {
        id = blocks[id].ring_next;
      }
      if (id != node) {
        return id;
      }
      ++size_class;
    }
    size_class = first_class_from(size_class);
    return size_class > last_class_ ? none : blocks[first_node_ + size_class].ring_next;
  }

  // Calls visit(id) for every block of a size's class and those above; the lists must not be changed meanwhile.
  template <typename Visit>
  void for_each_from(const TensorBlock* blocks, Size size, Visit&& visit) const {
    for (ClassId c = first_class_from(class_of(size)); c <= last_class_; c = first_class_from(c + 1)) {
      const BlockId node = first_node_ + c;
      for (BlockId id = blocks[node].ring_next; id != node; id = blocks[id].ring_next) {
        visit(id);
      }
    }
  }

 private:
  static constexpr int kCoarseShift = 12;

  ClassId uncapped_class_of(Size size) const {
    return static_cast<ClassId>(size < kFineSizes ? size >> shift_
                                                  : n_fine_ + ((size - kFineSizes) >> kCoarseShift));
  }
  ClassId class_of(Size size) const { return std::min(uncapped_class_of(std::min(size, kMostSizes)), last_class_); }

  void mark(ClassId size_class) {
    bits_[size_class / 64] |= std::uint64_t{1} << (size_class % 64);
    words_[size_class / 4096] |= std::uint64_t{1} << (size_class / 64 % 64);
  }
  void unmark(ClassId size_class) {
    std::uint64_t& word = bits_[size_class / 64];
    word &= ~(std::uint64_t{1} << (size_class % 64));
    if (word == 0) {
      words_[size_class / 4096] &= ~(std::uint64_t{1} << (size_class / 64 % 64));
    }
  }

  static std::uint64_t from_bit(std::uint64_t word, ClassId bit) { return word & (~std::uint64_t{0} << bit); }
  static ClassId first_bit(std::uint64_t word) { return static_cast<ClassId>(std::countr_zero(word)); }

  // The first class from one on that is not empty; one after the last if there is none.
  ClassId first_class_from(ClassId size_class) const {
    if (size_class > last_class_) {
      return last_class_ + 1;
    }
    if (const std::uint64_t here = from_bit(bits_[size_class / 64], size_class % 64)) {
      return size_class / 64 * 64 + first_bit(here);
    }
    ClassId word = size_class / 64 + 1, group = word / 64;
    std::uint64_t words = group < words_.size() ? from_bit(words_[group], word % 64) : 0;
    while (words == 0) {
      if (++group >= words_.size()) {
        return last_class_ + 1;
      }
      words = words_[group];
    }
    word = group * 64 + first_bit(words);
    return word * 64 + first_bit(bits_[word]);
  }

  int shift_;
  ClassId n_fine_;  // classes of one size
  ClassId last_class_;
  BlockId first_node_;
  BlockId end_node_;
  std::vector<std::uint64_t> bits_;   // by class, whether it is not empty
  std::vector<std::uint64_t> words_;  // by word of bits_, whether it is not 0
};

}  // namespace memscope::serving
