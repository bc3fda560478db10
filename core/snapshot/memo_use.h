// Which stored objects of a pickle are ever asked for: the pickle is read once for nothing else.
#pragma once

#include <bit>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "snapshot/chunked_reader.h"

namespace memscope::snapshot {

// A pickler numbers every object that it writes, and nearly none is named again: of a million events two million are
// stored for nothing. A bit for each, and how many are used before each word, so that only the used ones need a place.
class MemoUse {
 public:
  // The place of an object among those that are used; none if it is never asked for.
  std::optional<std::size_t> place(std::uint64_t index) const {
    const std::size_t word = index / kBits;
    const std::uint64_t bit = std::uint64_t{1} << (index % kBits);
    if (word >= words_.size() || (words_[word] & bit) == 0) {
      return std::nullopt;
    }
    return n_before_[word] + static_cast<std::size_t>(std::popcount(words_[word] & (bit - 1)));
  }

  void note(std::uint64_t index);
  void seal();

 private:
  static constexpr std::uint64_t kBits = 64;

  std::vector<std::uint64_t> words_;
  std::vector<std::uint32_t> n_before_;
};

// Passes over a pickle without making any value. What is no pickle that torch or Python writes of a snapshot is refused
// without a reason: who reads its values says why.
class MemoScan : public ChunkedReader {
 public:
  MemoScan() : ChunkedReader({}, 0) {}

  // What was found, once, after kStopped.
  std::shared_ptr<MemoUse> take_use();

 private:
  Status run() override;
  void pass(std::uint8_t code);
  void store(std::optional<std::uint64_t> index);
  void get(std::uint64_t index);

  MemoUse use_;
  std::uint64_t n_stored_ = 0;
  bool has_numbered_ = false;    // by an opcode that names the number
  bool has_unnumbered_ = false;  // by one that takes the next
};

}  // namespace memscope::snapshot
