// The least that a best-fit allocator with coalescing can be: a std::set of free blocks, and nothing else that PyTorch's
// does: one stream, no pools, no statistics but the peak, no log. What benchmarks/replay.py measures replays against.
#include <algorithm>
#include <cstdint>
#include <set>
#include <utility>
#include <vector>

namespace {

struct Block {
  std::int64_t address;
  std::int64_t size;
  Block* previous;
  Block* next;
  bool is_free;
};

struct BySizeThenAddress {
  bool operator()(const Block* a, const Block* b) const {
    return a->size != b->size ? a->size < b->size : a->address < b->address;
  }
};

class BestFit {
 public:
  Block* malloc(std::int64_t requested) {
    const std::int64_t size = (requested + 511) / 512 * 512;
    Block key{0, size, nullptr, nullptr, true};
    const auto found = free_.lower_bound(&key);
    Block* block = nullptr;
    if (found == free_.end()) {
      block = new_segment(size);
    } else {
      block = *found;
      free_.erase(found);
    }
    if (block->size - size >= 512) {
      Block* rest = new Block{block->address + size, block->size - size, block, block->next, true};
      if (rest->next != nullptr) {
        rest->next->previous = rest;
      }
      block->next = rest;
      block->size = size;
      free_.insert(rest);
    }
    block->is_free = false;
    return block;
  }

  void free(Block* block) {
    if (Block* previous = block->previous; previous != nullptr && previous->is_free) {
      free_.erase(previous);
      block->address = previous->address;
      block->size += previous->size;
      block->previous = previous->previous;
      if (block->previous != nullptr) {
        block->previous->next = block;
      }
      delete previous;
    }
    if (Block* next = block->next; next != nullptr && next->is_free) {
      free_.erase(next);
      block->size += next->size;
      block->next = next->next;
      if (block->next != nullptr) {
        block->next->previous = block;
      }
      delete next;
    }
    block->is_free = true;
    free_.insert(block);
  }

  std::int64_t reserved() const { return reserved_; }

 private:
  Block* new_segment(std::int64_t size) {
    const std::int64_t bytes = size <= (1 << 20) ? (2 << 20) : std::max<std::int64_t>(size, 20 << 20);
    Block* block = new Block{next_address_, bytes, nullptr, nullptr, true};
    next_address_ += bytes + (2 << 20);
    reserved_ += bytes;
    return block;
  }

  std::set<Block*, BySizeThenAddress> free_;
  std::int64_t next_address_ = std::int64_t{1} << 40;
  std::int64_t reserved_ = 0;
};

}  // namespace

// Serve n acts: an allocation of sizes[i] bytes named ids[i], or where sizes[i] is negative the free of that one. The
// bytes that it reserved in all.
extern "C" std::int64_t serve(const std::int64_t* ids, const std::int64_t* sizes, std::int64_t n, std::int64_t n_ids) {
  BestFit allocator;
  std::vector<Block*> block_of_id(static_cast<std::size_t>(n_ids), nullptr);
  for (std::int64_t i = 0; i < n; ++i) {
    Block*& block = block_of_id[static_cast<std::size_t>(ids[i])];
    if (sizes[i] < 0) {
      allocator.free(std::exchange(block, nullptr));
    } else {
      block = allocator.malloc(sizes[i]);
    }
  }
  return allocator.reserved();
}
