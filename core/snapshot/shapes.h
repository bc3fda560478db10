// Which keys a dict has, in which order: dicts of one shape keep only their values.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "snapshot/id_table.h"
#include "snapshot/value.h"

namespace memscope::snapshot {

using ShapeId = std::uint16_t;

// A tree: a shape is its parent and one key more. The dicts of a snapshot have a few dozen shapes; how many there can be
// is bounded, and a dict that finds none keeps its keys among its items.
class Shapes {
 public:
  static constexpr ShapeId kPairs = 0;  // no shape: keys and values in turns
  static constexpr ShapeId kEmpty = 1;
  static constexpr std::size_t kMaxShapes = 4096;
  static constexpr std::size_t kMaxKeys = 64;

  explicit Shapes(std::uint64_t secret) : secret_(secret) {}

  // The shape that a shape becomes with the keys of items (keys and values in turns); none if there would be too many.
  std::optional<ShapeId> with(ShapeId shape, std::span<const Value> keys_and_values);

  std::size_t size() const { return shapes_.size(); }
  std::size_t n_keys(ShapeId shape) const { return shapes_.at(shape).n_keys; }

  // Where the values of this shape have the one of a key, as set last; none if it has no such key. O(keys).
  std::optional<std::size_t> position(ShapeId shape, Value key) const;
  std::vector<Value> keys(ShapeId shape) const;

 private:
  struct Shape {
    Value key;
    ShapeId parent = kEmpty;
    std::uint16_t n_keys = 0;
  };

  bool is_last(ShapeId shape, std::span<const Value> keys_and_values) const;
  std::optional<ShapeId> child(ShapeId shape, Value key);

  std::uint64_t secret_;
  std::vector<Shape> shapes_ = {Shape{}, Shape{}};
  IdTable children_;
  // Dicts of one shape come one after the other: the keys of the last one, tried first.
  ShapeId last_ = kEmpty;
  std::vector<Value> last_keys_;
};

}  // namespace memscope::snapshot
