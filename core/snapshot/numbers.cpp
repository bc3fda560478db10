#include "snapshot/numbers.h"

#include <algorithm>
#include <limits>

#include "snapshot/status.h"

namespace memscope::snapshot {
namespace {

constexpr std::size_t kWordBytes = 8;

std::int64_t little_endian(Bytes bytes, bool is_negative) {
  std::uint64_t word = is_negative ? ~std::uint64_t{0} : 0;
  for (auto byte = bytes.rbegin(); byte != bytes.rend(); ++byte) {
    word = (word << 8) | *byte;
  }
  return static_cast<std::int64_t>(word);
}

bool all_are(Bytes bytes, std::uint8_t byte) {
  return std::ranges::all_of(bytes, [=](std::uint8_t b) { return b == byte; });
}

}  // namespace

Number long_integer(Bytes bytes) {
  if (bytes.empty()) {
    return std::int64_t{0};
  }
  const Bytes word = bytes.first(std::min(bytes.size(), kWordBytes));
  const std::int64_t low = little_endian(word, word.back() >= 0x80);
  const Bytes above = bytes.subspan(word.size());
  if (above.empty() || all_are(above, low < 0 ? 0xFF : 0)) {
    return Value::is_inline(low) ? Number(low) : Wide{low, WideKind::kInt64};
  }
  return Wide{low, all_are(above, 0) ? WideKind::kUint64 : WideKind::kBeyond};
}

Number decimal(Bytes line) {
  constexpr std::uint64_t kMax = std::numeric_limits<std::uint64_t>::max();
  constexpr std::uint64_t kTop = std::uint64_t{1} << 63;
  const bool is_negative = !line.empty() && line.front() == '-';
  line = line.subspan(is_negative ? 1 : 0);
  if (line.empty()) {
    throw Refused(Status::kBadNumber);
  }
  std::uint64_t number = 0;
  bool is_beyond = false;
  for (const std::uint8_t byte : line) {
    if (byte < '0' || byte > '9') {
      throw Refused(Status::kBadNumber);
    }
    const std::uint64_t digit = byte - std::uint64_t{'0'};
    is_beyond = is_beyond || number > (kMax - digit) / 10;
    number = is_beyond ? number : 10 * number + digit;
  }
  if (is_beyond || (is_negative && number > kTop)) {
    return Wide{0, WideKind::kBeyond};
  }
  if (!is_negative && number >= kTop) {
    return Wide{static_cast<std::int64_t>(number), WideKind::kUint64};
  }
  const auto value = static_cast<std::int64_t>(is_negative ? ~number + 1 : number);
  return Value::is_inline(value) ? Number(value) : Wide{value, WideKind::kInt64};
}

Wide big_endian_float(Bytes bytes) {
  std::uint64_t word = 0;
  for (const std::uint8_t byte : bytes) {
    word = (word << 8) | byte;
  }
  return {static_cast<std::int64_t>(word), WideKind::kFloat};
}

}  // namespace memscope::snapshot
