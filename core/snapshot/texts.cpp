#include "snapshot/texts.h"

#include <algorithm>
#include <cstring>

#include "checked.h"

namespace memscope::snapshot {
namespace {

std::uint32_t hash_of(Bytes text, std::uint64_t secret) {
  Hash hash(secret);
  hash.add(text.size());
  while (!text.empty()) {
    std::uint64_t word = 0;
    const std::size_t n = std::min(text.size(), sizeof word);
    std::memcpy(&word, text.data(), n);
    hash.add(word);
    text = text.subspan(n);
  }
  return hash.value();
}

}  // namespace

TextId Texts::intern(Bytes text) {
  const auto is_same = [&](TextId id) { return std::ranges::equal((*this)[id], text); };
  const TextId id = ids_.find_or_add(hash_of(text, secret_), size(), is_same);
  if (id == size()) {
    // Twice, because a vector that grows holds its content twice for a moment.
    budget_->take(2 * (text.size() + sizeof(std::uint64_t)));
    bytes_.insert(bytes_.end(), text.begin(), text.end());
    starts_.push_back(bytes_.size());
  }
  return id;
}

Bytes Texts::operator[](std::uint64_t id) const {
  if (id >= size()) {
    throw_out_of_range(id, size());
  }
  return Bytes(bytes_).subspan(starts_[id], starts_[id + 1] - starts_[id]);
}

}  // namespace memscope::snapshot
