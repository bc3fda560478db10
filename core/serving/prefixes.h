// Full blocks of prompts, shared by their key: found, counted by readers, and evicted, the longest unread first.
//
// A block's key stands for its tokens and all before them, as the chunk ids of the requests do. A block that several
// requests compute is kept once. Blocks that lose their last reader stay cached until their memory is needed; a
// request's last blocks go before its first ones. The rest of a sequence is its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "serving/manager.h"

namespace memscope::serving {

// Prefix chunks of the requests: those of request i are `chunk_id` from `start[i]` on. Empty where none are known.
struct Chunks {
  std::vector<std::int64_t> start;
  std::vector<std::int64_t> chunk_id;
  std::int64_t n_chunks = 0;
  std::int64_t chunk_tokens = 0;
};

// Which blocks are cached, by key, and in which order those that nobody reads are evicted. All of it is O(1).
class SharedBlocks {
 public:
  using Key = std::size_t;
  explicit SharedBlocks(std::size_t n_keys);

  bool is_cached(Key key) const { return nodes_.at(key).n_readers >= 0; }
  std::int64_t n_readers(Key key) const { return nodes_.at(key).n_readers; }
  // Become the first reader of a block that was not cached.
  void add(Key key) { nodes_.at(key).n_readers = 1; }
  void read(Key key);
  void leave(Key key);
  // Forget the block that nobody has read for the longest time; there must be one.
  void evict();

 private:
  // Idle blocks are a ring through a last node of their own: taken out in any place, without a search.
  struct Node {
    std::int64_t n_readers = -1;  // −1: not cached
    Key previous = 0;
    Key next = 0;
  };
  void unlink(Key key);
  Key end() const { return nodes_.size() - 1; }

  std::vector<Node> nodes_;
};

class Prefixes final : public Manager {
 public:
  Prefixes(Rules rules, std::int64_t capacity, bool is_padded, std::int64_t block_tokens, Chunks chunks);

  std::int64_t cached_tokens(const Request& request) const override;
  void note_first_start(const Request& request, std::int64_t n_cached) override;
  PrefixCounts prefix_counts() const override { return counts_; }

 private:
  bool admit(Request& request, const Start& start) override;
  bool take(const Request& request, std::int64_t n_tokens) override;
  void give_back(const Request& request) override;
  void note_held(const Request& request, std::int64_t before) override;
  std::int64_t shared_units(const Request& request) const override;

  SharedBlocks::Key key_of(const Request& request, std::int64_t block) const;
  std::int64_t n_full_blocks(const Request& request, std::int64_t n_tokens) const;
  std::int64_t n_idle_blocks(const Request& request, std::int64_t n_blocks) const;
  void read(SharedBlocks::Key key);
  void leave(SharedBlocks::Key key);
  void share(SharedBlocks::Key key);
  bool evict_for(std::int64_t n_units);

  std::int64_t block_tokens_;  // a unit is a token
  Chunks chunks_;
  SharedBlocks blocks_;
  PrefixCounts counts_;
};

}  // namespace memscope::serving
