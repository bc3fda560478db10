// The texts of a pickle, each kept once.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "snapshot/budget.h"
#include "snapshot/id_table.h"

namespace memscope::snapshot {

using Bytes = std::span<const std::uint8_t>;
using TextId = std::uint32_t;

class Texts {
 public:
  Texts(std::shared_ptr<Budget> budget, std::uint64_t secret) : budget_(budget), secret_(secret), ids_(budget) {}

  // The id of a text, the next one if it is new. O(length).
  TextId intern(Bytes text);

  Bytes operator[](std::uint64_t id) const;
  std::size_t size() const { return starts_.size() - 1; }

  // Nothing is added any more: the hash table goes.
  void seal() { ids_.clear(); }

 private:
  std::shared_ptr<Budget> budget_;
  std::uint64_t secret_;
  IdTable ids_;
  std::vector<std::uint8_t> bytes_;
  std::vector<std::uint64_t> starts_ = {0};  // of each text, and the end of the last
};

}  // namespace memscope::snapshot
