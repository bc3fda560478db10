#include "lifetimes/pairing.h"

#include <unordered_map>
#include <utility>

namespace memscope::lifetimes {
namespace {

using Row = std::int64_t;
constexpr Row kNoRow = -1;

class Pairer {
 public:
  Pairer(const Events& events, Recorded recorded) : events_(events), recorded_(recorded) {}

  Pairing pair() {
    for (std::size_t event = 0; event < events_.size(); ++event) {
      const Action action = events_.action(event);
      if (action == Action::kAlloc) {
        allocate(event);
      } else if (action == Action::kFreeRequested || action == Action::kFreeCompleted) {
        free(event, action);
      }
    }
    return std::move(result_);
  }

 private:
  void allocate(std::size_t event) {
    // The row that is open at the address, of every address that was seen.
    Row& open_row = open_row_.try_emplace(events_.address[event], kNoRow).first->second;
    if (open_row != kNoRow) {
      const auto row = static_cast<std::size_t>(open_row);
      ++result_.n_implied_frees;
      pairs().free_event[row] = position(event);
      if (pairs().free_requested_event[row] < 0) {
        pairs().free_requested_event[row] = position(event);
      }
      if (recorded_.completions) {
        contradicts(Contradiction::kAllocatedTwice, event);
      }
    }
    open_row = add_row(event, position(event));
  }

  void free(std::size_t event, Action action) {
    const auto [place, is_new] = open_row_.try_emplace(events_.address[event], kNoRow);
    Row& open_row = place->second;
    if (open_row != kNoRow) {
      if (events_.size_bytes[event] != pairs().requested_bytes[static_cast<std::size_t>(open_row)]) {
        contradicts(Contradiction::kFreeSizeDiffers, event);
      }
    } else {
      ++result_.n_unmatched_frees;
      // The second event of a free pair whose alloc is unseen finds the row that the first one made.
      if (!is_new && recorded_.allocs) {
        contradicts(Contradiction::kFreedTwice, event);
        return;
      }
      open_row = add_row(event, -1);
    }
    note_free(static_cast<std::size_t>(open_row), event, action);
    if (action == Action::kFreeCompleted || !recorded_.completions) {
      open_row = kNoRow;
    }
  }

  void note_free(std::size_t row, std::size_t event, Action action) {
    std::int64_t& requested = pairs().free_requested_event[row];
    if (action == Action::kFreeRequested) {
      if (requested >= 0) {
        contradicts(Contradiction::kFreedTwice, event);
      } else {
        requested = position(event);
      }
    }
    if (action == Action::kFreeCompleted || !recorded_.completions) {
      // The request of a free may be from before the recording, or none was recorded.
      if (requested < 0 && pairs().alloc_event[row] >= 0) {
        requested = position(event);
      }
      pairs().free_event[row] = position(event);
    }
  }

  Row add_row(std::size_t event, std::int64_t alloc_event) {
    pairs().alloc_event.push_back(alloc_event);
    pairs().free_requested_event.push_back(-1);
    pairs().free_event.push_back(-1);
    pairs().address.push_back(events_.address[event]);
    pairs().requested_bytes.push_back(events_.size_bytes[event]);
    return static_cast<Row>(pairs().alloc_event.size()) - 1;
  }

  void contradicts(Contradiction contradiction, std::size_t event) {
    if (!result_.first_contradiction) {
      result_.first_contradiction = {contradiction, position(event)};
    }
  }

  Pairs& pairs() { return result_.pairs; }
  static std::int64_t position(std::size_t event) { return static_cast<std::int64_t>(event); }

  const Events& events_;
  const Recorded recorded_;
  std::unordered_map<std::int64_t, Row> open_row_;
  Pairing result_;
};

}  // namespace

Pairing pair_events(const Events& events, Recorded recorded) { return Pairer(events, recorded).pair(); }

}  // namespace memscope::lifetimes
