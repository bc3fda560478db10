// How reading a pickle can end.
#pragma once

#include <cstdint>
#include <exception>

namespace memscope::snapshot {

enum class Status : std::uint8_t {
  kNeedInput = 0,  // everything complete was read: go on with more bytes
  kStopped,        // the pickle is at its end
  // All others are refusals.
  kAsksGlobal,
  kAsksCall,
  kUnknownOpcode,
  kUnsupported,
  kStackEmpty,
  kNoMark,
  kMemoMissing,
  kMemoBeyond,
  kTooLong,
  kWrongTarget,
  kBadProtocol,
  kBadNumber,
  kTooManyObjects,
  kTooMuchMemory,
  kNotJson,
  kTooDeep,
  kNotSliced,  // it can be read, but not in part
};

// Thrown where a pickle is refused; the machine knows the place.
struct Refused : std::exception {
  explicit Refused(Status reason) : status(reason) {}
  const char* what() const noexcept override { return "a pickle is refused"; }

  Status status;
};

}  // namespace memscope::snapshot
