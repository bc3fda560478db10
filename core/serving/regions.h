// One contiguous region for each sample of a request, taken when it starts, placed by binary buddies.
#pragma once

#include <cstdint>
#include <vector>

#include "serving/buddies.h"
#include "serving/manager.h"

namespace memscope::serving {

class Regions final : public Manager {
 public:
  struct Sizes {
    std::vector<std::int64_t> region_units;  // by request
    std::int64_t granule_units;              // the buddy allocator's smallest block
    std::int64_t n_largest;                  // regions of the longest sequence that fit at once
  };
  Regions(Rules rules, std::int64_t capacity, bool is_padded, Sizes sizes);

  bool holds_batch(std::int64_t n_sequences, std::int64_t) const override { return n_sequences <= sizes_.n_largest; }

 private:
  bool admit(Request& request, const Start& start) override;
  bool take(const Request&, std::int64_t) override { return true; }
  void give_back(const Request& request) override;
  bool reserves() const override { return true; }

  bool place(const Request& request);
  int order_of(const Request& request) const;
  std::int64_t region_units(const Request& request) const;
  std::int64_t slack_units(const Request& request) const;

  Sizes sizes_;
  Buddies buddies_;
  std::vector<std::vector<std::int64_t>> addresses_;  // by request, of each sample's region
};

}  // namespace memscope::serving
