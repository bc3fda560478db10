#include "planning/in_order.h"

#include <algorithm>
#include <array>
#include <bit>
#include <numeric>
#include <span>
#include <stdexcept>
#include <utility>

namespace memscope::planning {
namespace {

// What passing a row costs that lies below the place found, in rows looked at.
constexpr std::int64_t kPassWork = 12;

struct Occupied {
  std::int64_t bottom;
  std::int64_t top;
};

// What is occupied, from the bottom up: sorted into buckets at once, within a bucket only when it is looked at, since
// most places are found low.
class FromBottom {
 public:
  void clear() { occupied_.clear(); }
  void add(const Occupied& occupied) { occupied_.push_back(occupied); }

  // Calls look(occupied) from the bottom up until it returns false.
  template <typename Look>
  void each(Look&& look) {
    const std::size_t n_buckets = fill();
    for (std::size_t bucket = 0; bucket < n_buckets; ++bucket) {
      const auto begin = sorted_.begin() + end_[bucket], end = sorted_.begin() + end_[bucket + 1];
      if (end - begin > 1) {
        std::sort(begin, end, [](const Occupied& a, const Occupied& b) { return a.bottom < b.bottom; });
      }
      if (!std::all_of(begin, end, look)) {
        return;
      }
    }
  }

 private:
  static constexpr std::size_t kMaxBuckets = 256;
  static constexpr std::size_t kPerBucket = 2;

  // How many buckets there are; bucket i then lies from end_[i] to end_[i + 1].
  std::size_t fill() {
    std::int64_t highest = 0;
    for (const Occupied& occupied : occupied_) {
      highest = std::max(highest, occupied.bottom);
    }
    const std::size_t wanted = std::clamp(std::bit_floor(occupied_.size() / kPerBucket), std::size_t{1}, kMaxBuckets);
    const int n_bits = static_cast<int>(std::bit_width(static_cast<std::uint64_t>(highest)));
    const int shift = std::max(n_bits - std::countr_zero(wanted), 0);
    const auto bucket_of = [=](const Occupied& occupied) { return static_cast<std::size_t>(occupied.bottom >> shift); };
    std::fill_n(end_.begin(), wanted + 2, 0);
    for (const Occupied& occupied : occupied_) {
      ++end_[bucket_of(occupied) + 2];
    }
    std::partial_sum(end_.begin(), end_.begin() + static_cast<std::ptrdiff_t>(wanted) + 2, end_.begin());
    sorted_.resize(std::max(sorted_.size(), occupied_.size()));
    for (const Occupied& occupied : occupied_) {
      sorted_[static_cast<std::size_t>(end_[bucket_of(occupied) + 1]++)] = occupied;
    }
    return wanted;
  }

  std::vector<Occupied> occupied_;
  std::vector<Occupied> sorted_;
  std::array<std::ptrdiff_t, kMaxBuckets + 2> end_;
};

// The addresses that rows occupy, kNotPlaced for those without a place.
struct Places {
  std::vector<std::int64_t> bottom;
  std::vector<std::int64_t> top;

  explicit Places(std::size_t n) : bottom(n, kNotPlaced), top(n, kNotPlaced) {}
};

// The placed rows that live at some time with a given one.
class Obstacles {
 public:
  explicit Obstacles(const Places& places) : places_(places) {}

  // Room for so many rows that are considered.
  void clear(std::size_t n_considered) {
    if (found_.size() <= n_considered) {
      found_.resize(n_considered + 1);
    }
    n_found_ = 0;
  }

  // Without a branch: whether a row has a place yet cannot be predicted. One without has its top below every floor.
  void consider(Row other, const Lifetime& row, bool lives_with_it = true) {
    found_[n_found_] = other;
    n_found_ += static_cast<std::size_t>((places_.top[other] > row.floor) & lives_with_it);
  }

  std::int64_t size() const { return static_cast<std::int64_t>(n_found_); }

  // The lowest place, and the work of finding it.
  std::pair<std::int64_t, std::int64_t> lowest_place(const Lifetime& row) {
    from_bottom_.clear();
    for (const Row other : std::span(found_).first(n_found_)) {
      from_bottom_.add({places_.bottom[other], places_.top[other]});
    }
    std::int64_t place = row.floor, work = 0;
    from_bottom_.each([&](const Occupied& occupied) {
      if (occupied.bottom - place >= row.size) {
        return false;
      }
      place = std::max(place, occupied.top);
      work += kPassWork;
      return true;
    });
    return {place, work};
  }

 private:
  const Places& places_;
  std::vector<Row> found_;
  std::size_t n_found_ = 0;
  FromBottom from_bottom_;
};

}  // namespace

OrderedPlacer::OrderedPlacer(std::vector<Lifetime> rows, std::size_t stride)
    : rows_(std::move(rows)), stride_(stride), first_{0} {
  if (stride == 0) {
    throw std::invalid_argument("a stride of 0");
  }
  std::vector<Row> alive;
  for (Row from = 0; from < rows_.size(); from += stride) {
    std::erase_if(alive, [&](Row row) { return rows_[row].end <= rows_[from].start; });
    alive_.insert(alive_.end(), alive.begin(), alive.end());
    first_.push_back(alive_.size());
    for (Row row = from; row < std::min(rows_.size(), from + stride); ++row) {
      alive.push_back(row);
    }
  }
}

OrderedPlacer::Result OrderedPlacer::place(Int64s order, std::int64_t max_offset, std::int64_t max_work) const {
  Result result;
  Placement& placement = result.placement;
  Places places(rows_.size());
  Obstacles obstacles(places);
  for (const std::int64_t number : order) {
    const Lifetime& row = Checked(std::span(rows_))[number];
    const Row own = static_cast<Row>(number), stride = own / stride_, from = stride * stride_;
    const auto alive = std::span(alive_).subspan(first_[stride], first_[stride + 1] - first_[stride]);
    // The rows start in order: those from its own on live with it if they start before it ends.
    const auto until = std::lower_bound(rows_.begin() + static_cast<std::ptrdiff_t>(own), rows_.end(), row.end,
                                        [](const Lifetime& other, std::int64_t end) { return other.start < end; });
    const Row last = static_cast<Row>(until - rows_.begin());
    const std::size_t n_seen = alive.size() + (last - from);
    obstacles.clear(n_seen);
    for (const Row other : alive) {
      obstacles.consider(other, row, rows_[other].end > row.start);
    }
    for (Row other = from; other < own; ++other) {
      obstacles.consider(other, row, rows_[other].end > row.start);
    }
    for (Row other = own; other < last; ++other) {
      obstacles.consider(other, row);
    }
    placement.work += static_cast<std::int64_t>(n_seen) + obstacles.size();
    const auto [bottom, work] = obstacles.lowest_place(row);
    placement.work += work;
    places.bottom[own] = bottom;
    places.top[own] = bottom + row.size;
    ++result.n_placed;
    placement.peak = std::max(placement.peak, places.top[own]);
    if (placement.peak > max_offset || placement.work > max_work) {
      break;
    }
  }
  placement.offset = std::move(places.bottom);
  return result;
}

}  // namespace memscope::planning
