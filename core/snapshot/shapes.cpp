#include "snapshot/shapes.h"

#include <algorithm>

namespace memscope::snapshot {

std::optional<ShapeId> Shapes::with(ShapeId shape, std::span<const Value> keys_and_values) {
  if (is_last(shape, keys_and_values)) {
    return last_;
  }
  for (std::size_t i = 0; i < keys_and_values.size(); i += 2) {
    const std::optional<ShapeId> longer = child(shape, keys_and_values[i]);
    if (!longer) {
      return std::nullopt;
    }
    shape = *longer;
  }
  last_ = shape;
  last_keys_ = keys(shape);
  return shape;
}

bool Shapes::is_last(ShapeId shape, std::span<const Value> keys_and_values) const {
  if (shape != kEmpty || keys_and_values.size() != 2 * last_keys_.size()) {
    return false;
  }
  const Value* item = keys_and_values.data();
  bool is_same = true;
  for (const Value key : last_keys_) {
    is_same &= *item == key;
    item += 2;
  }
  return is_same;
}

std::optional<ShapeId> Shapes::child(ShapeId shape, Value key) {
  Hash hash(secret_);
  hash.add(shape);
  hash.add(static_cast<std::uint64_t>(key.bits()));
  const auto is_same = [&](std::uint32_t id) { return shapes_.at(id).parent == shape && shapes_.at(id).key == key; };
  std::optional<std::uint32_t> child = children_.find(hash.value(), is_same);
  if (!child) {
    if (shapes_.at(shape).n_keys >= kMaxKeys || shapes_.size() >= kMaxShapes) {
      return std::nullopt;
    }
    child = children_.find_or_add(hash.value(), shapes_.size(), is_same);
    const auto n_keys = static_cast<std::uint16_t>(shapes_.at(shape).n_keys + 1);
    shapes_.push_back({.key = key, .parent = shape, .n_keys = n_keys});
  }
  return static_cast<ShapeId>(*child);
}

std::optional<std::size_t> Shapes::position(ShapeId shape, Value key) const {
  for (std::size_t n = n_keys(shape); n > 0; shape = shapes_.at(shape).parent) {
    --n;
    if (shapes_.at(shape).key == key) {
      return n;
    }
  }
  return std::nullopt;
}

std::vector<Value> Shapes::keys(ShapeId shape) const {
  std::vector<Value> keys;
  for (; n_keys(shape) > 0; shape = shapes_.at(shape).parent) {
    keys.push_back(shapes_.at(shape).key);
  }
  std::ranges::reverse(keys);
  return keys;
}

}  // namespace memscope::snapshot
