// Caches that are tensors: every step makes them anew, one token longer, in PyTorch's caching allocator.
//
// A layer's keys, and its values, are one tensor of a request, with a row for each sample and, in a padded batch, with
// its padding; a step concatenates the old one and the new tokens to another, and only then lets the old one go
// (`torch.cat`, as Hugging Face's `DynamicLayer.update`).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "serving/manager.h"
#include "serving/tensor_allocator.h"

namespace memscope::serving {

// A tensor of each request.
struct TensorShape {
  std::int64_t token_bytes;
  std::int64_t window;  // tokens that are looked back over; 0: all of them

  friend bool operator==(const TensorShape&, const TensorShape&) = default;
};

class Tensors final : public Manager {
 public:
  Tensors(Rules rules, std::int64_t capacity, bool is_padded, std::vector<TensorShape> shapes, std::size_t n_requests,
          std::int64_t unit_bytes);

  bool holds_batch(std::int64_t n_sequences, std::int64_t n_tokens) const override;
  bool is_fragmented() const override { return true; }
  TensorCounts tensor_counts() const override;

 private:
  // The tensors of a request.
  struct Cache {
    std::vector<BlockId> blocks;  // none, or one for each
    std::size_t n_grown = 0;      // that have the new length, of a request whose step ran out of memory
  };

  bool admit(Request& request, const Start& start) override;
  bool take(const Request& request, std::int64_t n_tokens) override;
  bool take_pad(const Request& request) override { return take(request, request.computed_tokens + 1); }
  void drop(const Request& request) override { give_back(request); }
  void give_back(const Request& request) override;

  // Tensors up to one that have the same shape.
  struct Alike {
    std::size_t end;
    TensorShape shape;
  };

  std::vector<Alike> alike_;
  std::size_t n_tensors_;
  std::int64_t unit_bytes_;
  std::int64_t largest_units_ = 0;  // of one token in a request's largest tensor
  TensorAllocator allocator_;
  std::vector<Cache> caches_;  // by request
};

}  // namespace memscope::serving
