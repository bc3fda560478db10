// An ordered set of small keys in chunks of contiguous memory.
//
// Finding is two binary searches, one over the first keys of the chunks and one inside a chunk; a change moves at most
// one chunk's keys. A full chunk is halved, and one that fits into three quarters of a chunk together with a neighbour
// joins it, so that the directory stays short and is itself moved only once in many changes. A tree would need no
// moving, but real programs have tens to thousands of free blocks, for which a few contiguous keys are far cheaper:
// benchmarks/replay.py holds it against std::set.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace memscope::caching {

// What a set keeps of each chunk beside its keys, for searches by something else than the order. It is told when a
// chunk was put into the directory, or taken out of it, and when the keys of one have changed.
struct NoNotes {
  void opened(std::size_t) {}
  void closed(std::size_t) {}
  template <typename Keys>
  void changed(std::size_t, const Keys&) {}
};

// Key: trivially copyable, compared by <, and unique within the set. A Probe is a key, or a place between keys: what
// can be compared with one by < from both sides.
template <typename Key, typename Notes = NoNotes>
class SortedChunks {
 public:
  static constexpr std::size_t kChunkKeys = 64;

  bool empty() const { return n_ == 0; }
  std::size_t size() const { return n_; }

  void insert(const Key& key) {
    if (chunks_.empty()) {
      open_chunk(0);
    }
    std::size_t p = chunk_of(key);
    if (chunks_[p]->n == kChunkKeys) {
      halve(p);
      p += firsts_[p + 1] < key ? 1 : 0;
    }
    Chunk& chunk = *chunks_[p];
    Key* const place = std::lower_bound(chunk.begin(), chunk.end(), key);
    std::move_backward(place, chunk.end(), chunk.end() + 1);
    *place = key;
    ++chunk.n;
    ++n_;
    firsts_[p] = chunk.keys[0];
    notes_.changed(p, chunk);
  }

  // Whether the key was there.
  bool erase(const Key& key) {
    const std::optional<Place> place = find(key);
    if (place) {
      erase(*place);
    }
    return place.has_value();
  }

  // Where a member is; valid until the next change.
  struct Place {
    std::size_t chunk;
    std::size_t row;
  };
  std::optional<Place> find(const Key& key) const {
    if (chunks_.empty()) {
      return std::nullopt;
    }
    const std::size_t p = chunk_of(key);
    const Chunk& chunk = *chunks_[p];
    const Key* const found = std::lower_bound(chunk.begin(), chunk.end(), key);
    if (found == chunk.end() || key < *found) {
      return std::nullopt;
    }
    return Place{p, static_cast<std::size_t>(found - chunk.begin())};
  }

  void erase(Place place) {
    Chunk& chunk = *chunks_[place.chunk];
    std::move(chunk.begin() + place.row + 1, chunk.end(), chunk.begin() + place.row);
    --chunk.n;
    --n_;
    shrink(place.chunk);
  }

  // Puts a key in for another one. The other keys must be in order; the one at the place itself need not be any more.
  void replace(Place place, const Key& key) {
    Chunk& chunk = *chunks_[place.chunk];
    Key* const old = chunk.begin() + place.row;
    const bool is_above = place.chunk == 0 || (place.row > 0 && !(key < chunk.keys[0]));
    const bool is_below = place.chunk + 1 == chunks_.size() || key < firsts_[place.chunk + 1];
    if (!is_above || !is_below) {
      erase(place);
      insert(key);
      return;
    }
    if (place.row > 0 && key < *(old - 1)) {
      Key* const target = std::lower_bound(chunk.begin(), old, key);
      std::move_backward(target, old, old + 1);
      *target = key;
    } else {
      Key* const target = std::lower_bound(old + 1, chunk.end(), key) - 1;
      std::move(old + 1, target + 1, old);
      *target = key;
    }
    firsts_[place.chunk] = chunk.keys[0];
    notes_.changed(place.chunk, chunk);
  }

  // The first key that is not before one, nullptr for none; valid until the next change, as all answers here.
  template <typename Probe = Key>
  const Key* lower_bound(const Probe& key) const {
    if (n_ == 0) {
      return nullptr;
    }
    const std::size_t p = chunk_of(key);
    const Key* const place = std::lower_bound(chunks_[p]->begin(), chunks_[p]->end(), key);
    return place != chunks_[p]->end() ? place : first_of(p + 1);
  }

  // The first key after one, which need not be a member.
  template <typename Probe = Key>
  const Key* upper_bound(const Probe& key) const {
    if (n_ == 0) {
      return nullptr;
    }
    const std::size_t p = chunk_of(key);
    const Key* const place = std::upper_bound(chunks_[p]->begin(), chunks_[p]->end(), key);
    return place != chunks_[p]->end() ? place : first_of(p + 1);
  }

  // The last key before one, which need not be a member.
  template <typename Probe = Key>
  const Key* last_before(const Probe& key) const {
    if (n_ == 0) {
      return nullptr;
    }
    const std::size_t p = chunk_of(key);
    const Key* const place = std::lower_bound(chunks_[p]->begin(), chunks_[p]->end(), key);
    if (place != chunks_[p]->begin()) {
      return place - 1;
    }
    return p == 0 ? nullptr : chunks_[p - 1]->end() - 1;
  }

  const Key* first() const { return n_ == 0 ? nullptr : first_of(0); }

  const Notes& notes() const { return notes_; }
  // The keys of one chunk, in order.
  std::span<const Key> chunk(std::size_t p) const { return {chunks_[p]->begin(), chunks_[p]->end()}; }

  // Calls visit(key) for every key in order; the set must not be changed meanwhile.
  template <typename Visit>
  void for_each(Visit&& visit) const {
    for (const std::unique_ptr<Chunk>& chunk : chunks_) {
      for (const Key& key : *chunk) {
        visit(key);
      }
    }
  }

 private:
  static constexpr std::size_t kJoinsUpTo = kChunkKeys * 3 / 4;

  struct Chunk {
    std::size_t n = 0;
    std::array<Key, kChunkKeys> keys;

    Key* begin() { return keys.data(); }
    Key* end() { return keys.data() + n; }
    const Key* begin() const { return keys.data(); }
    const Key* end() const { return keys.data() + n; }
  };

  // The last chunk whose first key is not after one, else the first chunk. Needs a chunk.
  template <typename Probe = Key>
  std::size_t chunk_of(const Probe& key) const {
    if (firsts_.size() == 1) {
      return 0;
    }
    const auto above = std::upper_bound(firsts_.begin() + 1, firsts_.end(), key);
    return static_cast<std::size_t>(above - firsts_.begin()) - 1;
  }

  const Key* first_of(std::size_t p) const { return p < chunks_.size() ? chunks_[p]->begin() : nullptr; }

  // Put an empty chunk into the directory. Its first key is the caller's to set.
  void open_chunk(std::size_t p) {
    std::unique_ptr<Chunk> chunk;
    if (spare_.empty()) {
      chunk = std::make_unique<Chunk>();
    } else {
      chunk = std::move(spare_.back());
      spare_.pop_back();
    }
    chunks_.insert(chunks_.begin() + static_cast<std::ptrdiff_t>(p), std::move(chunk));
    firsts_.insert(firsts_.begin() + static_cast<std::ptrdiff_t>(p), Key{});
    notes_.opened(p);
  }

  void close_chunk(std::size_t p) {
    chunks_[p]->n = 0;
    spare_.push_back(std::move(chunks_[p]));
    chunks_.erase(chunks_.begin() + static_cast<std::ptrdiff_t>(p));
    firsts_.erase(firsts_.begin() + static_cast<std::ptrdiff_t>(p));
    notes_.closed(p);
  }

  void halve(std::size_t p) {
    open_chunk(p + 1);
    Chunk &lower = *chunks_[p], &upper = *chunks_[p + 1];
    const std::size_t half = kChunkKeys / 2;
    std::copy(lower.begin() + half, lower.end(), upper.begin());
    upper.n = lower.n - half;
    lower.n = half;
    firsts_[p + 1] = upper.keys[0];
    notes_.changed(p, lower);
    notes_.changed(p + 1, upper);
  }

  // After a key was taken out of a chunk: forget the chunk if it is empty, join it if few are left.
  void shrink(std::size_t p) {
    if (chunks_[p]->n == 0) {
      close_chunk(p);
      return;
    }
    firsts_[p] = chunks_[p]->keys[0];
    notes_.changed(p, *chunks_[p]);
    if (chunks_[p]->n <= kJoinsUpTo && !join(p) && p > 0) {
      join(p - 1);
    }
  }

  bool join(std::size_t p) {
    if (p + 1 >= chunks_.size() || chunks_[p]->n + chunks_[p + 1]->n > kJoinsUpTo) {
      return false;
    }
    Chunk &lower = *chunks_[p], &upper = *chunks_[p + 1];
    std::copy(upper.begin(), upper.end(), lower.end());
    lower.n += upper.n;
    notes_.changed(p, lower);
    close_chunk(p + 1);
    return true;
  }

  std::size_t n_ = 0;
  std::vector<std::unique_ptr<Chunk>> chunks_;
  std::vector<Key> firsts_;
  std::vector<std::unique_ptr<Chunk>> spare_;
  [[no_unique_address]] Notes notes_;
};

}  // namespace memscope::caching
