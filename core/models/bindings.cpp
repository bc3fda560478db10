#include <nanobind/nanobind.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/vector.h>

#include <cstddef>
#include <memory>
#include <vector>

#include "caching/python.h"
#include "models/arena.h"
#include "models/async_pool.h"
#include "models/bfc.h"
#include "models/binning.h"
#include "models/buddy.h"
#include "models/cuda_malloc.h"
#include "models/paged.h"
#include "models/pool.h"
#include "models/stitching.h"

using namespace memscope;
using namespace memscope::models;
using namespace nb::literals;

namespace {

using caching::bind_model;
using caching::BlockHandle;

// The class of a model whose constructor takes its parameters: their types and names, in the order of their struct.
template <typename Model, typename... Values, typename... Names>
auto bind(nb::module_& module, const char* name, const Names&... names) {
  return bind_model<Model>(module, name)
      .def(
          "__init__",
          [](Model* self, Bytes capacity, bool is_logged, Values... values) {
            AllocatorOptions options;
            options.capacity = capacity;
            options.is_logged = is_logged;
            new (self) Model(options, typename Model::Parameters{values...});
          },
          "capacity_bytes"_a, "is_logged"_a, names...,
          "An allocator that holds nothing and has no pairs of pools but its own, which come before the streams'.\n"
          "``capacity_bytes``: what the driver can give out, −1 for no limit.");
}

std::vector<BlockHandle> free_blocks(std::shared_ptr<Arena> self, std::size_t pool) {
  std::vector<BlockHandle> found;
  self->free_blocks(self->pools.at(pool)).for_each([&](Block& block) {
    found.push_back({self, &block, block.serial});
  });
  return found;
}

}  // namespace

NB_MODULE(models, module) {
  memscope::end_quietly();
  module.doc() = "Allocators that are models, after what is known of others than PyTorch's own.";
  nb::module_::import_("memscope._core.caching");
  bind<CudaMalloc, Bytes, Bytes>(module, "CudaMalloc", "alignment_bytes"_a, "page_bytes"_a);
  bind<Bfc, Bytes, Bytes, Bytes, bool>(module, "Bfc", "alignment_bytes"_a, "first_region_bytes"_a,
                                       "max_internal_fragmentation_bytes"_a, "collects_regions"_a);
  bind<Buddy, Bytes, Bytes>(module, "Buddy", "min_block_bytes"_a, "chunk_bytes"_a);
  bind<Pool, Bytes, Bytes, Bytes, bool>(module, "Pool", "alignment_bytes"_a, "initial_pool_bytes"_a,
                                        "maximum_pool_bytes"_a, "returns_memory"_a);
  bind<Arena, Bytes, Bytes, Bytes>(module, "Arena", "alignment_bytes"_a, "superblock_bytes"_a, "initial_arena_bytes"_a)
      .def("free_blocks", &free_blocks, "pool"_a, "The free blocks of a pool by their address.");
  bind<Binning, int, int, Bytes, Bytes, Bytes, Bytes, bool>(
      module, "Binning", "min_bin_exponent"_a, "max_bin_exponent"_a, "blocks_per_chunk"_a, "alignment_bytes"_a,
      "initial_pool_bytes"_a, "maximum_pool_bytes"_a, "returns_memory"_a)
      .def_ro_static("MAX_BINS", &Binning::kMaxBins);
  bind<AsyncPool, Bytes, Bytes, Bytes, Bytes, bool, bool, bool>(
      module, "AsyncPool", "alignment_bytes"_a, "page_bytes"_a, "growth_chunk_bytes"_a, "release_threshold_bytes"_a,
      "reuse_allow_opportunistic"_a, "reuse_allow_internal_dependencies"_a, "remaps_unused"_a);
  bind<Paged, Bytes, Bytes, Bytes, bool>(module, "Paged", "page_bytes"_a, "large_from_bytes"_a, "alignment_bytes"_a,
                                         "keeps_ranges"_a);
  bind<Stitching, Bytes, Bytes, std::size_t, Bytes>(module, "Stitching", "chunk_bytes"_a, "fragment_limit_bytes"_a,
                                                    "n_idle_most"_a, "alignment_bytes"_a)
      .def_prop_ro("n_ranges", [](const Stitching& self) { return self.ranges.n_ranges(); }, "Stitched ranges.")
      .def_prop_ro("n_links", [](const Stitching& self) { return self.ranges.n_links(); },
                   "Blocks of all stitched ranges, counted in each.")
      .def_prop_ro("n_idle", [](const Stitching& self) { return self.ranges.n_idle(); },
                   "Stitched ranges that serve no allocation.")
      .def_prop_ro("n_marked_blocks", &Stitching::n_marked_blocks,
                   "Blocks that are part of a range, or of an allocation of several. O(blocks).")
      .def_ro("n_small_allocs", &Stitching::num_small_alloc, "Segments of small requests taken from the driver.")
      .def_ro("n_small_frees", &Stitching::num_small_free)
      .def_ro("n_stitches", &Stitching::num_stitches)
      .def_ro("n_splits", &Stitching::num_splits)
      .def_ro("n_reuses", &Stitching::num_reuses)
      .def_ro("n_evictions", &Stitching::num_evictions);
}
