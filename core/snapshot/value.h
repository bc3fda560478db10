// One value of a pickle in eight bytes: small numbers and constants whole, everything else by its id.
#pragma once

#include <cstdint>

namespace memscope::snapshot {

enum class Tag : std::uint8_t {
  kNone = 0,  // no value: what a dict has for a key that it has not
  kInteger,   // 61 bits, in place
  kText,
  kBytes,
  kBox,       // a list, tuple or dict
  kConstant,  // None, False, True
  kWide,      // an integer of more than 61 bits or a float
};

enum class Constant : std::uint8_t { kNone = 0, kFalse, kTrue };

enum class BoxKind : std::uint8_t { kList = 0, kTuple, kDict };

// What a wide value is; its bits are those of the number, or the id of a text.
enum class WideKind : std::uint8_t {
  kInt64 = 0,
  kUint64,     // 2^63 to 2^64-1, kept as the bits of an int64
  kBeyond,     // further out than 64 bits: the number is lost
  kFloat,
  kFloatText,  // a float that protocol 0 wrote in decimals
};

// What a value is, as told outside.
enum class Kind : std::uint8_t {
  kNothing = 0,  // None, or no value at all
  kBoolean,
  kInteger,
  kBeyondInteger,
  kFloat,
  kFloatText,
  kText,
  kBytes,
  kList,
  kTuple,
  kDict,
};

struct Wide {
  std::int64_t bits = 0;
  WideKind kind = WideKind::kInt64;
};

class Value {
 public:
  constexpr Value() = default;
  constexpr Value(Tag tag, std::uint64_t id) : bits_(static_cast<std::int64_t>(id << kTagBits) | as_bits(tag)) {}
  constexpr explicit Value(Constant constant) : Value(Tag::kConstant, static_cast<std::uint64_t>(constant)) {}

  static constexpr bool is_inline(std::int64_t number) { return -kEnd <= number && number < kEnd; }
  static constexpr Value integer(std::int64_t number) {
    return from_bits(static_cast<std::int64_t>(static_cast<std::uint64_t>(number) << kTagBits) | as_bits(Tag::kInteger));
  }
  static constexpr Value from_bits(std::int64_t bits) {
    Value value;
    value.bits_ = bits;
    return value;
  }

  constexpr std::int64_t bits() const { return bits_; }
  constexpr Tag tag() const { return static_cast<Tag>(bits_ & kTagMask); }
  constexpr bool is(Tag tag) const { return this->tag() == tag; }
  constexpr std::int64_t number() const { return bits_ >> kTagBits; }
  constexpr std::uint64_t id() const { return static_cast<std::uint64_t>(bits_) >> kTagBits; }
  // Whether it is something other than None.
  constexpr bool is_there() const { return bits_ != 0 && *this != Value(Constant::kNone); }
  constexpr bool operator==(const Value&) const = default;

 private:
  static constexpr int kTagBits = 3;
  static constexpr std::int64_t kTagMask = (1 << kTagBits) - 1;
  static constexpr std::int64_t kEnd = std::int64_t{1} << (63 - kTagBits);
  static constexpr std::int64_t as_bits(Tag tag) { return static_cast<std::int64_t>(tag); }

  std::int64_t bits_ = 0;
};

static_assert(sizeof(Value) == sizeof(std::int64_t));

}  // namespace memscope::snapshot
