// Numbers in the bytes of a pickle.
#pragma once

#include <cstdint>
#include <variant>

#include "snapshot/texts.h"
#include "snapshot/value.h"

namespace memscope::snapshot {

// A number that fits in place, or a wide one.
using Number = std::variant<std::int64_t, Wide>;

// A little-endian integer in two's complement, of any length. O(bytes).
Number long_integer(Bytes bytes);

// A line of decimal digits; beyond 64 bits the number is lost (WideKind::kBeyond). Refused if it is none.
Number decimal(Bytes line);

// A big-endian float of eight bytes.
Wide big_endian_float(Bytes bytes);

}  // namespace memscope::snapshot
