// How much memory the values of a pickle may take: in proportion to what was read, asked before room is made.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "snapshot/status.h"

namespace memscope::snapshot {

class Budget {
 public:
  // Real snapshots need 0.4 to 4.5 bytes for each of the pickle's, and up to 50 for each byte of a gzip; a pickle that
  // passes a limit, or a gzip of equal events by the million, is built to fill memory.
  static constexpr std::uint64_t kFreeBytes = std::uint64_t{64} << 20;
  static constexpr std::uint64_t kBytesPerPickleByte = 8;
  static constexpr std::uint64_t kBytesPerFileByte = 128;

  // So many bytes of the pickle have been read, out of so many of the file.
  void note_read(std::uint64_t n_pickle_bytes, std::uint64_t n_file_bytes) {
    allowed_ = kFreeBytes + std::min(kBytesPerPickleByte * n_pickle_bytes, kBytesPerFileByte * n_file_bytes);
  }

  void take(std::uint64_t n_bytes) {
    if (held_ > allowed_ || n_bytes > allowed_ - held_) {
      throw Refused(Status::kTooMuchMemory);
    }
    held_ += n_bytes;
  }

  void give_back(std::uint64_t n_bytes) { held_ -= std::min(n_bytes, held_); }

  std::uint64_t held_bytes() const { return held_; }

 private:
  std::uint64_t allowed_ = kFreeBytes;
  std::uint64_t held_ = 0;
};

// Room for one row more in a vector, asked of the budget; counts both copies while it moves.
template <typename T>
void make_room(std::vector<T>& rows, Budget& budget) {
  if (rows.size() < rows.capacity()) {
    return;
  }
  const std::size_t n_before = rows.capacity();
  const std::size_t n_after = std::max<std::size_t>(64, 2 * n_before);
  budget.take(n_after * sizeof(T));
  rows.reserve(n_after);
  budget.give_back(n_before * sizeof(T));
}

}  // namespace memscope::snapshot
