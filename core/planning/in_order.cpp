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

// The addresses of a row; both kNotPlaced for one without a place.
struct Place {
  std::int64_t bottom = kNotPlaced;
  std::int64_t top = kNotPlaced;
};

// The places of rows that live at some time with a given one. They are sorted into buckets at once, within a bucket only
// when it is looked at, since most rows find a place low down.
class Obstacles {
 public:
  // Makes room for so many rows that are considered.
  void clear(std::size_t n_considered) {
    if (found_.size() <= n_considered) {
      found_.resize(n_considered + 1);
      sorted_.resize(n_considered + 1);
    }
    n_found_ = 0;
  }

  // Without a branch: whether a row has a place yet cannot be predicted. One without has its top below every floor.
  void consider(const Place& place, std::int64_t floor, bool lives_with_it = true) {
    found_[n_found_] = place;
    n_found_ += static_cast<std::size_t>((place.top > floor) & lives_with_it);
  }

  std::int64_t size() const { return static_cast<std::int64_t>(n_found_); }

  // Where a row fits lowest, and the work of finding that.
  std::pair<std::int64_t, std::int64_t> lowest_fit(const Lifetime& row) {
    std::int64_t bottom = row.floor, work = 0;
    const std::size_t n_buckets = sort_into_buckets();
    for (std::size_t bucket = 0; bucket < n_buckets; ++bucket) {
      const auto begin = sorted_.begin() + end_[bucket], end = sorted_.begin() + end_[bucket + 1];
      if (end - begin > 1) {
        std::sort(begin, end, [](const Place& a, const Place& b) { return a.bottom < b.bottom; });
      }
      for (auto place = begin; place != end; ++place) {
        if (place->bottom - bottom >= row.size) {
          return {bottom, work};
        }
        bottom = std::max(bottom, place->top);
        work += kPassWork;
      }
    }
    return {bottom, work};
  }

 private:
  static constexpr std::size_t kMaxBuckets = 256;
  static constexpr std::size_t kPerBucket = 8;

  // How many buckets there are; bucket i then lies from end_[i] to end_[i + 1].
  std::size_t sort_into_buckets() {
    const std::span<const Place> found = std::span(found_).first(n_found_);
    std::int64_t highest = 0;
    for (const Place& place : found) {
      highest = std::max(highest, place.bottom);
    }
    const std::size_t n_buckets = std::clamp(std::bit_floor(n_found_ / kPerBucket), std::size_t{1}, kMaxBuckets);
    const int n_bits = static_cast<int>(std::bit_width(static_cast<std::uint64_t>(highest)));
    const int shift = std::max(n_bits - std::countr_zero(n_buckets), 0);
    const auto bucket_of = [=](const Place& place) { return static_cast<std::size_t>(place.bottom >> shift); };
    std::fill_n(end_.begin(), n_buckets + 2, 0);
    for (const Place& place : found) {
      ++end_[bucket_of(place) + 2];
    }
    std::partial_sum(end_.begin(), end_.begin() + static_cast<std::ptrdiff_t>(n_buckets) + 2, end_.begin());
    for (const Place& place : found) {
      sorted_[static_cast<std::size_t>(end_[bucket_of(place) + 1]++)] = place;
    }
    return n_buckets;
  }

  std::vector<Place> found_;
  std::size_t n_found_ = 0;
  std::vector<Place> sorted_;
  std::array<std::ptrdiff_t, kMaxBuckets + 2> end_{};
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
  std::vector<Place> places(rows_.size());
  Obstacles obstacles;
  for (const std::int64_t number : order) {
    const Lifetime& row = Checked(std::span(rows_))[number];
    const Row own = static_cast<Row>(number), stride = own / stride_, from = stride * stride_;
    const auto alive = std::span(alive_).subspan(first_[stride], first_[stride + 1] - first_[stride]);
    // The rows start in order: those from its own on live with it if they start before it ends.
    const auto until = std::lower_bound(rows_.begin() + static_cast<std::ptrdiff_t>(own), rows_.end(), row.end,
                                        [](const Lifetime& other, std::int32_t end) { return other.start < end; });
    const Row last = static_cast<Row>(until - rows_.begin());
    const std::size_t n_seen = alive.size() + (last - from);
    obstacles.clear(n_seen);
    for (const Row other : alive) {
      obstacles.consider(places[other], row.floor, rows_[other].end > row.start);
    }
    for (Row other = from; other < own; ++other) {
      obstacles.consider(places[other], row.floor, rows_[other].end > row.start);
    }
    for (Row other = own; other < last; ++other) {
      obstacles.consider(places[other], row.floor);
    }
    placement.work += static_cast<std::int64_t>(n_seen) + obstacles.size();
    const auto [bottom, work] = obstacles.lowest_fit(row);
    placement.work += work;
    places[own] = {bottom, bottom + row.size};
    ++result.n_placed;
    placement.peak = std::max(placement.peak, places[own].top);
    if (placement.peak > max_offset || placement.work > max_work) {
      break;
    }
  }
  placement.offset.reserve(places.size());
  for (const Place& place : places) {
    placement.offset.push_back(place.bottom);
  }
  return result;
}

}  // namespace memscope::planning
