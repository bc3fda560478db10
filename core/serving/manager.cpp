#include "serving/manager.h"

namespace memscope::serving {

bool Manager::start(Request& request, const Start& start) {
  if (!admit(request, start)) {
    return false;
  }
  if (grow(request, start.n_tokens)) {
    return true;
  }
  drop(request);
  return false;
}

bool Manager::grow(Request& request, std::int64_t n_tokens) {
  if (!take(request, n_tokens)) {
    return false;
  }
  const std::int64_t before = request.computed_tokens;
  hold(request, n_tokens);
  note_held(request, before);
  return true;
}

bool Manager::pad_one(Request& request) {
  const std::int64_t held = request.computed_tokens;
  if (!take_pad(request)) {
    return false;
  }
  usage_.read -= rules_.read_units(request, held);
  request.pad_tokens += 1;
  usage_.read += rules_.read_units(request, held);
  return true;
}

void Manager::forget(const Request& request) {
  const std::int64_t held = request.computed_tokens;
  const std::int64_t units = rules_.held_units(request, held);
  if (!is_padded_) {
    // A padded batch is read as a whole until its end.
    usage_.read -= rules_.read_units(request, held);
  }
  usage_.tokens -= units - shared_units(request);
  if (reserves()) {
    usage_.future -= rules_.held_units(request, request.final_tokens()) - units;
  }
}

void Manager::release(Request& request) {
  const std::int64_t held = request.computed_tokens;
  usage_.saved -= rules_.saved_units(request, held);
  if (is_padded_) {
    usage_.read -= rules_.read_units(request, held);
  }
  give_back(request);
  request.computed_tokens = 0;
  request.pad_tokens = 0;
}

void Manager::hold(Request& request, std::int64_t n_tokens) {
  const std::int64_t before = request.computed_tokens;
  const std::int64_t more = rules_.held_units(request, n_tokens) - rules_.held_units(request, before);
  usage_.read += rules_.read_units(request, n_tokens) - rules_.read_units(request, before);
  usage_.saved += rules_.saved_units(request, n_tokens) - rules_.saved_units(request, before);
  usage_.tokens += more;
  if (reserves()) {
    usage_.future -= more;
  }
  request.computed_tokens = n_tokens;
}

}  // namespace memscope::serving
