// What both readers of untrusted text have: bytes come in as they are read of a file, a token that breaks off at their
// end is kept for the next ones, and a tape comes out.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "snapshot/byte_window.h"
#include "snapshot/tape.h"

namespace memscope::snapshot {

class ChunkedReader {
 public:
  ChunkedReader(const std::vector<std::string>& known_texts, std::uint64_t secret)
      : tape_(std::make_shared<Tape>(known_texts, secret)) {}
  ChunkedReader(const ChunkedReader&) = delete;
  ChunkedReader& operator=(const ChunkedReader&) = delete;
  virtual ~ChunkedReader() = default;

  // Goes on with the next bytes of a text. `n_file_bytes` have been read of its file, where it may be packed.
  Status feed(Bytes bytes, std::uint64_t n_file_bytes);

  // The values read, once, after kStopped.
  std::shared_ptr<Tape> take_tape();

  // Where the text breaks off after kNeedInput; where what was refused stands after a refusal.
  std::uint64_t offset() const { return offset_; }

 protected:
  // Reads what is in the window, until more is needed, the text ends or it is refused.
  virtual Status run() = 0;

  std::shared_ptr<Tape> tape_;
  ByteWindow window_;
  std::uint64_t offset_ = 0;
  Status status_ = Status::kNeedInput;

 private:
  std::vector<std::uint8_t> kept_;  // a token that began at the end of the bytes before
};

}  // namespace memscope::snapshot
