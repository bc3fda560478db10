// Ids by content: a hash table of ids whose content lies elsewhere.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <utility>
#include <vector>

#include "snapshot/budget.h"

namespace memscope::snapshot {

// A hash that nobody can foresee when making a file of colliding content: it starts from a secret.
class Hash {
 public:
  explicit Hash(std::uint64_t secret) : state_(secret) {}

  void add(std::uint64_t word) {
    state_ = (state_ ^ word) * kMultiplier;
    state_ ^= state_ >> 32;
  }
  std::uint32_t value() const { return static_cast<std::uint32_t>(state_ ^ (state_ >> 29)); }

 private:
  static constexpr std::uint64_t kMultiplier = 0x9E3779B97F4A7C15;  // odd, from the golden ratio

  std::uint64_t state_;
};

// Eight bytes an entry and no allocation for each, where std::unordered_set takes forty and one. Expected O(1).
class IdTable {
 public:
  explicit IdTable(std::shared_ptr<Budget> budget = nullptr) : budget_(std::move(budget)) {}

  // The id of what `is_same` tells to be the same.
  template <typename IsSame>
  std::optional<std::uint32_t> find(std::uint32_t hash, IsSame&& is_same) const {
    if (slots_.empty()) {
      return std::nullopt;
    }
    const Slot& slot = slots_[slot_of(hash, is_same)];
    return slot.id_after == 0 ? std::nullopt : std::optional(slot.id_after - 1);
  }

  // The same, and `new_id` if there is none; it is added then.
  template <typename IsSame>
  std::uint32_t find_or_add(std::uint32_t hash, std::size_t new_id, IsSame&& is_same) {
    if (2 * (n_ids_ + 1) > slots_.size()) {
      grow();
    }
    Slot& slot = slots_[slot_of(hash, is_same)];
    if (slot.id_after == 0) {
      slot = {hash, static_cast<std::uint32_t>(new_id + 1)};
      ++n_ids_;
    }
    return slot.id_after - 1;
  }

  void clear() {
    give_back();
    slots_ = {};
    n_ids_ = 0;
  }

 private:
  struct Slot {
    std::uint32_t hash = 0;
    std::uint32_t id_after = 0;  // the id + 1, 0 for an empty slot
  };
  static constexpr std::size_t kFirstSlots = 1 << 8;
  static constexpr std::size_t kMaxSlots = std::size_t{1} << 31;

  // The slot with the same content, or the empty one where it belongs; at most half of them are taken.
  template <typename IsSame>
  std::size_t slot_of(std::uint32_t hash, IsSame&& is_same) const {
    const std::size_t mask = slots_.size() - 1;
    std::size_t at = hash & mask;
    while (slots_[at].id_after != 0 && !(slots_[at].hash == hash && is_same(slots_[at].id_after - 1))) {
      at = (at + 1) & mask;
    }
    return at;
  }

  void grow() {
    const std::size_t n_slots = slots_.empty() ? kFirstSlots : 2 * slots_.size();
    if (n_slots > kMaxSlots) {
      throw std::length_error("more than a billion ids");
    }
    if (budget_) {
      budget_->take(n_slots * sizeof(Slot));
    }
    std::vector<Slot> larger(n_slots);
    give_back();
    std::swap(slots_, larger);
    for (const Slot& slot : larger) {
      if (slot.id_after != 0) {
        slots_[slot_of(slot.hash, [](std::uint32_t) { return false; })] = slot;
      }
    }
  }

  void give_back() {
    if (budget_) {
      budget_->give_back(slots_.size() * sizeof(Slot));
    }
  }

  std::shared_ptr<Budget> budget_;
  std::vector<Slot> slots_;
  std::size_t n_ids_ = 0;
};

}  // namespace memscope::snapshot
