#include "serving/prefixes.h"

#include <algorithm>
#include <utility>

#include "checked.h"

namespace memscope::serving {
namespace {

// Blocks that are no longer than a chunk have a key for each of a chunk's parts; longer ones that of their last chunk.
std::size_t n_keys(const Chunks& chunks, std::int64_t block_tokens) {
  return as_index(chunks.n_chunks * std::max<std::int64_t>(1, chunks.chunk_tokens / block_tokens));
}

}  // namespace

SharedBlocks::SharedBlocks(std::size_t n_keys) : nodes_(n_keys + 1) { nodes_.back() = {-1, n_keys, n_keys}; }

void SharedBlocks::read(Key key) {
  if (nodes_.at(key).n_readers++ == 0) {
    unlink(key);
  }
}

void SharedBlocks::leave(Key key) {
  if (--nodes_.at(key).n_readers > 0) {
    return;
  }
  const Key last = nodes_.back().previous;
  nodes_.at(last).next = key;
  nodes_[key].previous = last;
  nodes_[key].next = end();
  nodes_.back().previous = key;
}

void SharedBlocks::evict() {
  const Key key = nodes_.back().next;
  unlink(key);
  nodes_.at(key).n_readers = -1;
}

void SharedBlocks::unlink(Key key) {
  const Node& node = nodes_.at(key);
  nodes_.at(node.previous).next = node.next;
  nodes_.at(node.next).previous = node.previous;
}

Prefixes::Prefixes(Rules rules, std::int64_t capacity, bool is_padded, std::int64_t block_tokens, Chunks chunks)
    : Manager(std::move(rules), capacity, is_padded),
      block_tokens_(block_tokens),
      chunks_(std::move(chunks)),
      blocks_(n_keys(chunks_, block_tokens_)) {}

SharedBlocks::Key Prefixes::key_of(const Request& request, std::int64_t block) const {
  const std::int64_t chunk_tokens = chunks_.chunk_tokens, first = chunks_.start.at(request.number);
  if (block_tokens_ <= chunk_tokens) {
    const std::int64_t per_chunk = chunk_tokens / block_tokens_;
    const std::int64_t chunk = chunks_.chunk_id.at(as_index(first + block / per_chunk));
    return as_index(chunk * per_chunk + block % per_chunk);
  }
  return as_index(chunks_.chunk_id.at(as_index(first + (block + 1) * (block_tokens_ / chunk_tokens) - 1)));
}

// Full blocks of the prompt among the first tokens of a sequence.
std::int64_t Prefixes::n_full_blocks(const Request& request, std::int64_t n_tokens) const {
  return chunks_.chunk_tokens == 0 ? 0 : std::min(request.prompt_tokens, n_tokens) / block_tokens_;
}

std::int64_t Prefixes::cached_tokens(const Request& request) const {
  const std::int64_t most = n_full_blocks(request, request.known_tokens() - 1);
  std::int64_t n_blocks = 0;
  while (n_blocks < most && blocks_.is_cached(key_of(request, n_blocks))) {
    ++n_blocks;
  }
  return n_blocks * block_tokens_;
}

void Prefixes::note_first_start(const Request& request, std::int64_t n_cached) {
  counts_.n_queried_blocks += n_full_blocks(request, request.prompt_tokens - 1);
  counts_.n_hit_blocks += n_cached / block_tokens_;
}

// How many of a prompt's first, cached blocks nobody reads now.
std::int64_t Prefixes::n_idle_blocks(const Request& request, std::int64_t n_blocks) const {
  std::int64_t n_idle = 0;
  for (std::int64_t block = 0; block < n_blocks; ++block) {
    n_idle += blocks_.n_readers(key_of(request, block)) == 0;
  }
  return n_idle;
}

bool Prefixes::admit(Request& request, const Start& start) {
  const std::int64_t n_cached = start.n_cached;
  const std::int64_t n_blocks = n_cached / block_tokens_;
  const std::int64_t needed = rules().taken_units(request, request.known_tokens()) - n_cached;
  if (needed > free_units() - n_idle_blocks(request, n_blocks) * block_tokens_) {
    return false;
  }
  for (std::int64_t block = 0; block < n_blocks; ++block) {
    read(key_of(request, block));
  }
  request.computed_tokens = n_cached;
  usage_.read += rules().read_units(request, n_cached);
  return true;
}

bool Prefixes::take(const Request& request, std::int64_t n_tokens) {
  const std::int64_t more =
      rules().taken_units(request, n_tokens) - rules().taken_units(request, request.computed_tokens);
  if (!evict_for(more)) {
    return false;
  }
  usage_.taken += more;
  return true;
}

// Evict idle blocks until so many units are free; false, and nothing is evicted, if there are not enough.
bool Prefixes::evict_for(std::int64_t n_units) {
  if (free_units() < n_units) {
    return false;
  }
  while (free_units() - usage_.cached < n_units) {
    blocks_.evict();
    usage_.cached -= block_tokens_;
    counts_.n_evictions += 1;
  }
  return true;
}

// Blocks of a request's own that are full now become shared ones.
void Prefixes::note_held(const Request& request, std::int64_t before) {
  const std::int64_t n_full = n_full_blocks(request, request.computed_tokens);
  for (std::int64_t block = n_full_blocks(request, before); block < n_full; ++block) {
    share(key_of(request, block));
  }
}

void Prefixes::share(SharedBlocks::Key key) {
  if (!blocks_.is_cached(key)) {
    blocks_.add(key);
    return;
  }
  // It is there already: the request's own one is dropped.
  usage_.taken -= block_tokens_;
  usage_.tokens -= block_tokens_;
  read(key);
}

void Prefixes::read(SharedBlocks::Key key) {
  if (blocks_.n_readers(key) == 0) {
    usage_.cached -= block_tokens_;
    usage_.taken += block_tokens_;
    usage_.tokens += block_tokens_;
  } else {
    usage_.saved += block_tokens_;
  }
  blocks_.read(key);
}

void Prefixes::leave(SharedBlocks::Key key) {
  blocks_.leave(key);
  if (blocks_.n_readers(key) > 0) {
    usage_.saved -= block_tokens_;
    return;
  }
  usage_.taken -= block_tokens_;
  usage_.tokens -= block_tokens_;
  usage_.cached += block_tokens_;
}

std::int64_t Prefixes::shared_units(const Request& request) const {
  return n_full_blocks(request, request.computed_tokens) * block_tokens_;
}

void Prefixes::give_back(const Request& request) {
  const std::int64_t shared = shared_units(request);
  usage_.taken -= rules().taken_units(request, request.computed_tokens) - shared;
  for (std::int64_t block = shared / block_tokens_ - 1; block >= 0; --block) {
    leave(key_of(request, block));
  }
}

}  // namespace memscope::serving
