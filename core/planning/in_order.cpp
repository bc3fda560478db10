#include "planning/in_order.h"

#include <algorithm>
#include <functional>
#include <span>
#include <stdexcept>
#include <utility>

namespace memscope::planning {
namespace {

// What taking the lowest row out of a heap costs, in rows looked at.
constexpr std::int64_t kPopWork = 12;

// A row, and the addresses that it occupies once it is placed.
struct Placed {
  std::int64_t start;
  std::int64_t end;
  std::int64_t bottom = kNotPlaced;
  std::int64_t top = kNotPlaced;
};

struct Occupied {
  std::int64_t bottom;
  std::int64_t top;

  friend bool operator>(const Occupied& a, const Occupied& b) { return a.bottom > b.bottom; }
};

// The places of rows that live at some time with a given one, the lowest first.
class Obstacles {
 public:
  void clear() { heap_.clear(); }

  void consider(const Placed& other, const Lifetime& row) {
    // A row without a place has its top below every floor.
    if (other.top > row.floor && other.end > row.start) {
      heap_.push_back({other.bottom, other.top});
    }
  }

  std::int64_t size() const { return static_cast<std::int64_t>(heap_.size()); }

  // The lowest place, and the work of finding it.
  std::pair<std::int64_t, std::int64_t> lowest_place(const Lifetime& row) {
    std::make_heap(heap_.begin(), heap_.end(), std::greater<>());
    std::int64_t place = row.floor, work = 0;
    while (!heap_.empty() && heap_.front().bottom - place < row.size) {
      place = std::max(place, heap_.front().top);
      std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
      heap_.pop_back();
      work += kPopWork;
    }
    return {place, work};
  }

 private:
  std::vector<Occupied> heap_;
};

// Looks at the rows that may live with one: some alive before, and those that start from a row on. How many they were.
std::int64_t collect(std::span<const Row> alive, std::span<const Placed> placed, Row from, const Lifetime& row,
                     Obstacles& obstacles) {
  for (const Row other : alive) {
    obstacles.consider(placed[other], row);
  }
  auto n_seen = static_cast<std::int64_t>(alive.size());
  for (const Placed& other : placed.subspan(from)) {
    if (other.start >= row.end) {
      break;
    }
    obstacles.consider(other, row);
    ++n_seen;
  }
  return n_seen;
}

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
  std::vector<Placed> placed;
  placed.reserve(rows_.size());
  for (const Lifetime& row : rows_) {
    placed.push_back({row.start, row.end});
  }
  Result result;
  Placement& placement = result.placement;
  Obstacles obstacles;
  for (const std::int64_t number : order) {
    const Lifetime& row = Checked(std::span(rows_))[number];
    const std::size_t stride = static_cast<Row>(number) / stride_;
    const auto alive = std::span(alive_).subspan(first_[stride], first_[stride + 1] - first_[stride]);
    obstacles.clear();
    const std::int64_t n_seen = collect(alive, placed, stride * stride_, row, obstacles);
    placement.work += n_seen + obstacles.size();
    const auto [bottom, work] = obstacles.lowest_place(row);
    placement.work += work;
    Placed& here = placed[static_cast<Row>(number)];
    here.bottom = bottom;
    here.top = bottom + row.size;
    ++result.n_placed;
    placement.peak = std::max(placement.peak, here.top);
    if (placement.peak > max_offset || placement.work > max_work) {
      break;
    }
  }
  placement.offset.reserve(placed.size());
  for (const Placed& row : placed) {
    placement.offset.push_back(row.bottom);
  }
  return result;
}

}  // namespace memscope::planning
