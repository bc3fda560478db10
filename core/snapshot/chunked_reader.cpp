#include "snapshot/chunked_reader.h"

#include <stdexcept>
#include <utility>

namespace memscope::snapshot {

Status ChunkedReader::feed(Bytes bytes, std::uint64_t n_file_bytes) {
  if (status_ != Status::kNeedInput) {
    return status_;
  }
  const std::uint64_t offset = offset_ - kept_.size();
  if (!kept_.empty()) {
    kept_.insert(kept_.end(), bytes.begin(), bytes.end());
    bytes = kept_;
  }
  tape_->budget()->note_read(offset + bytes.size(), n_file_bytes);
  window_.open(bytes, offset);
  status_ = run();
  if (status_ == Status::kNeedInput) {
    const Bytes rest = window_.rest();
    kept_ = std::vector<std::uint8_t>(rest.begin(), rest.end());
    offset_ = window_.end_offset();
  }
  window_.open({}, 0);
  return status_;
}

std::shared_ptr<Tape> ChunkedReader::take_tape() {
  if (status_ != Status::kStopped || !tape_) {
    throw std::logic_error("there is no tape to take");
  }
  return std::exchange(tape_, nullptr);
}

}  // namespace memscope::snapshot
