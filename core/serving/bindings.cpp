#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/unique_ptr.h>

#include <memory>
#include <span>
#include <stdexcept>
#include <utility>
#include <vector>

#include "arrays.h"
#include "serving/engine.h"
#include "serving/on_demand.h"
#include "serving/prefixes.h"
#include "serving/regions.h"
#include "serving/tensors.h"

using namespace memscope;
using namespace memscope::serving;
using namespace nb::literals;

namespace {

using Int64Array = Array<std::int64_t>;

std::vector<std::int64_t> values(const Int64Array& array) { return {array.data(), array.data() + array.size()}; }

// What every simulation is made from.
struct Setting {
  std::vector<Request> requests;
  Scheduler scheduler;
  StepCosts costs;
  Rules rules;
  std::int64_t capacity = 0;
};

std::vector<Request> make_requests(const Int64Array& arrival_us, const Int64Array& prompt_tokens,
                                   const Int64Array& output_tokens, const Int64Array& n_samples,
                                   const Array<bool>& is_refused) {
  const auto arrivals = view(arrival_us), prompts = view(prompt_tokens), outputs = view(output_tokens);
  const auto samples = view(n_samples);
  const auto refused = view(is_refused);
  std::vector<Request> requests(arrivals.size());
  for (std::size_t i = 0; i < requests.size(); ++i) {
    requests[i].number = i;
    requests[i].arrival_us = arrivals[i];
    requests[i].prompt_tokens = prompts[i];
    requests[i].output_tokens = outputs[i];
    requests[i].n_samples = samples[i];
    requests[i].is_refused = refused[i];
  }
  return requests;
}

void make_setting(Setting* setting, const Int64Array& arrival_us, const Int64Array& prompt_tokens,
                  const Int64Array& output_tokens, const Int64Array& n_samples, const Array<bool>& is_refused,
                  const Int64Array& taken, const Int64Array& held, std::int64_t capacity, const Scheduler& scheduler,
                  const StepCosts& costs) {
  new (setting) Setting{make_requests(arrival_us, prompt_tokens, output_tokens, n_samples, is_refused), scheduler, costs,
                        Rules{values(taken), values(held), {}, 1, false}, capacity};
}

void share_samples(Setting& setting, const Int64Array& window_tokens, const Int64Array& window_units,
                   std::int64_t private_tokens) {
  const auto tokens = view(window_tokens), units = view(window_units);
  setting.rules.windows.clear();
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    setting.rules.windows.push_back({tokens[i], units[i]});
  }
  setting.rules.private_tokens = private_tokens;
  setting.rules.shares_samples = true;
}

std::unique_ptr<Engine> make_engine(const Setting& setting, std::unique_ptr<Manager> manager) {
  return std::make_unique<Engine>(setting.requests, setting.scheduler, setting.costs, std::move(manager));
}

std::unique_ptr<Engine> on_demand(const Setting& setting) {
  const bool is_padded = setting.scheduler.is_padded;
  return make_engine(setting, std::make_unique<OnDemand>(setting.rules, setting.capacity, is_padded));
}

std::unique_ptr<Engine> regions(const Setting& setting, const Int64Array& region_units, std::int64_t granule_units,
                                std::int64_t n_largest) {
  Regions::Sizes sizes{values(region_units), granule_units, n_largest};
  const bool is_padded = setting.scheduler.is_padded;
  return make_engine(setting,
                     std::make_unique<Regions>(setting.rules, setting.capacity, is_padded, std::move(sizes)));
}

std::unique_ptr<Engine> prefixes(const Setting& setting, std::int64_t block_tokens, const Int64Array& chunk_start,
                                 const Int64Array& chunk_id, std::int64_t n_chunks, std::int64_t chunk_tokens) {
  Chunks chunks{values(chunk_start), values(chunk_id), n_chunks, chunk_tokens};
  const bool is_padded = setting.scheduler.is_padded;
  return make_engine(setting, std::make_unique<Prefixes>(setting.rules, setting.capacity, is_padded, block_tokens,
                                                         std::move(chunks)));
}

std::unique_ptr<Engine> tensors(const Setting& setting, const Int64Array& token_bytes, const Int64Array& window,
                                std::int64_t unit_bytes) {
  const auto sizes = view(token_bytes), windows = view(window);
  std::vector<TensorShape> shapes;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    shapes.push_back({sizes[i], windows[i]});
  }
  return make_engine(setting, std::make_unique<Tensors>(setting.rules, setting.capacity, setting.scheduler.is_padded,
                                                        std::move(shapes), setting.requests.size(), unit_bytes));
}

// An allocator with places for tensors, by which Python knows them.
class TensorPlaces {
 public:
  TensorPlaces(std::int64_t capacity, std::int64_t granularity, std::int64_t n_places)
      : allocator_(capacity, granularity), blocks_(as_index(n_places), TensorAllocator::kNoBlock) {}

  std::size_t replace(std::int64_t start, std::int64_t end, std::int64_t n_bytes) {
    return allocator_.replace(places(start, end), n_bytes);
  }
  void free(std::int64_t start, std::int64_t end) {
    for (BlockId& block : places(start, end)) {
      if (block != TensorAllocator::kNoBlock) {
        allocator_.free(std::exchange(block, TensorAllocator::kNoBlock));
      }
    }
  }
  NewArray<std::int64_t> addresses() const {
    std::vector<std::int64_t> values;
    for (const BlockId block : blocks_) {
      values.push_back(block == TensorAllocator::kNoBlock ? -1 : allocator_.address_of(block));
    }
    return to_numpy(std::move(values));
  }
  const TensorAllocator& allocator() const { return allocator_; }

 private:
  std::span<BlockId> places(std::int64_t start, std::int64_t end) {
    if (start < 0 || end < start || std::cmp_greater(end, blocks_.size())) {
      throw std::out_of_range("there are no such places");
    }
    return std::span(blocks_).subspan(as_index(start), as_index(end - start));
  }

  TensorAllocator allocator_;
  std::vector<BlockId> blocks_;
};

Status run(Engine& engine, std::int64_t n_steps) {
  return without_gil([&] { return engine.run(as_index(n_steps)); });
}

template <typename T, typename Row>
NewArray<T> column(const std::vector<Row>& rows, T Row::* member) {
  std::vector<T> values;
  values.reserve(rows.size());
  for (const Row& row : rows) {
    values.push_back(row.*member);
  }
  return to_numpy(std::move(values));
}

nb::dict steps(const Engine& engine) {
  const std::vector<Step>& rows = engine.steps();
  nb::dict columns;
  columns["start_us"] = column(rows, &Step::start_us);
  columns["end_us"] = column(rows, &Step::end_us);
  columns["n_running"] = column(rows, &Step::n_running);
  columns["n_waiting"] = column(rows, &Step::n_waiting);
  columns["n_preemptions"] = column(rows, &Step::n_preemptions);
  columns["tokens"] = column(rows, &Step::tokens);
  columns["taken"] = column(rows, &Step::taken);
  columns["reservation"] = column(rows, &Step::reservation);
  columns["internal"] = column(rows, &Step::internal);
  columns["external"] = column(rows, &Step::external);
  columns["saved"] = column(rows, &Step::saved);
  return columns;
}

NewArray<std::int64_t> first_token_us(const Engine& engine) {
  return column(engine.requests(), &Request::first_token_us);
}

// vector<bool> is no array.
NewArray<std::uint8_t> is_refused(const Engine& engine) {
  std::vector<std::uint8_t> values;
  for (const Request& request : engine.requests()) {
    values.push_back(request.is_refused ? 1 : 0);
  }
  return to_numpy(std::move(values));
}

}  // namespace

NB_MODULE(serving, module) {
  memscope::end_quietly();
  module.doc() = "A serving engine's steps under one way to manage key/value memory.";

  nb::enum_<Status>(module, "Status", "Why a simulation stopped.")
      .value("DONE", Status::kDone)
      .value("PAUSED", Status::kPaused)
      .value("STUCK", Status::kStuck, "A step had work and did none of it.");

  nb::class_<Scheduler>(module, "Scheduler", "The limits of an engine's steps; memory in units.")
      .def(
          "__init__",
          [](Scheduler* self, std::int64_t max_running, std::int64_t step_tokens, bool is_chunked, bool is_static,
             bool is_padded, std::int64_t longest, std::int64_t swap_units) {
            new (self) Scheduler{max_running, step_tokens, is_chunked, is_static, is_padded, longest, swap_units};
          },
          nb::kw_only(), "max_running"_a, "step_tokens"_a, "is_chunked"_a, "is_static"_a, "is_padded"_a, "longest"_a,
          "swap_units"_a);

  nb::class_<StepCosts>(module, "StepCosts", "What a step costs; times in microseconds.")
      .def(
          "__init__",
          [](StepCosts* self, double flops_per_us, double bytes_per_us, double flops_per_token, double flops_per_pair,
             double weight_bytes, double overhead_us, double swap_bytes_per_us, double unit_bytes) {
            new (self) StepCosts{flops_per_us, bytes_per_us, flops_per_token,   flops_per_pair,
                                 weight_bytes, overhead_us,  swap_bytes_per_us, unit_bytes};
          },
          nb::kw_only(), "flops_per_us"_a, "bytes_per_us"_a, "flops_per_token"_a, "flops_per_pair"_a, "weight_bytes"_a,
          "overhead_us"_a, "swap_bytes_per_us"_a, "unit_bytes"_a);

  nb::class_<Counts>(module, "Counts")
      .def_ro("now_us", &Counts::now_us)
      .def_ro("busy_us", &Counts::busy_us)
      .def_ro("n_done", &Counts::n_done)
      .def_ro("n_refused", &Counts::n_refused)
      .def_ro("n_steps", &Counts::n_steps)
      .def_ro("n_preemptions", &Counts::n_preemptions)
      .def_ro("n_swaps", &Counts::n_swaps)
      .def_ro("n_recomputed_tokens", &Counts::n_recomputed_tokens)
      .def_ro("n_generated_tokens", &Counts::n_generated_tokens)
      .def_ro("n_computed_tokens", &Counts::n_computed_tokens)
      .def_ro("n_copies", &Counts::n_copies)
      .def_ro("n_pad_tokens", &Counts::n_pad_tokens)
      .def_ro("peak_running", &Counts::peak_running)
      .def_ro("peak_taken", &Counts::peak_taken)
      .def_ro("peak_tokens", &Counts::peak_tokens);

  nb::class_<PrefixCounts>(module, "PrefixCounts")
      .def_ro("n_evictions", &PrefixCounts::n_evictions)
      .def_ro("n_queried_blocks", &PrefixCounts::n_queried_blocks)
      .def_ro("n_hit_blocks", &PrefixCounts::n_hit_blocks);

  nb::class_<TensorCounts>(module, "TensorCounts")
      .def_ro("peak_reserved_bytes", &TensorCounts::peak_reserved_bytes)
      .def_ro("n_retries", &TensorCounts::n_retries);

  nb::class_<Setting>(module, "Setting", "Requests, an engine, and how much memory its sequences take.")
      .def("__init__", &make_setting, nb::kw_only(), "arrival_us"_a, "prompt_tokens"_a, "output_tokens"_a,
           "n_samples"_a, "is_refused"_a, "taken"_a, "held"_a, "capacity"_a, "scheduler"_a, "costs"_a,
           "``arrival_us``, ``prompt_tokens``, ``output_tokens``, ``n_samples``: int64 (n,), in order of arrival;\n"
           "``is_refused``: bool (n,). ``taken``, ``held``: int64 (longest + 1,), units that a sequence of so many\n"
           "tokens takes, and that its tokens are. ``capacity``: units.")
      .def("share_samples", &share_samples, nb::kw_only(), "window_tokens"_a, "window_units"_a, "private_tokens"_a,
           "Let the samples of a request share its prompt, in blocks of so many tokens. int64 (groups,): tokens that\n"
           "a group of layers looks back over (0: all), and units of a token in it.");

  nb::class_<Engine>(module, "Engine", "A simulation under way.")
      .def("run", &run, "n_steps"_a, "Run steps until every request is done, or so many were made.")
      .def_prop_ro("counts", &Engine::counts)
      .def_prop_ro("prefix_counts", [](const Engine& engine) { return engine.manager().prefix_counts(); })
      .def_prop_ro("tensor_counts", [](const Engine& engine) { return engine.manager().tensor_counts(); })
      .def_prop_ro("is_empty", &Engine::is_empty, "Whether nothing runs, waits or holds memory.")
      .def("memory_over_time",
           [](const Engine& engine) {
             const MemoryOverTime& memory = engine.memory();
             return nb::make_tuple(to_int(memory.tokens), to_int(memory.reservation), to_int(memory.internal),
                                   to_int(memory.external), to_int(memory.unclaimed));
           },
           "Unit·µs that held tokens, were reserved, internal, external and unclaimed; exact.")
      .def("steps", &steps,
           "The columns of Step by their names, int64 (n_steps,): times in microseconds, memory in units.")
      .def("is_refused", &is_refused, "uint8 (n,): 1 where a request was refused.")
      .def("first_token_us", &first_token_us, "int64 (n,): when its first token came out, −1 if none did.");

  nb::class_<TensorPlaces>(module, "TensorPlaces", "The allocator of ``tensors`` alone, with places for them.")
      .def(nb::init<std::int64_t, std::int64_t, std::int64_t>(), nb::kw_only(), "capacity"_a, "granularity"_a,
           "n_places"_a, "Bytes, and what all sizes that will be asked for are multiples of.")
      .def("replace", &TensorPlaces::replace, "start"_a, "end"_a, "n_bytes"_a,
           "Put new tensors of one size into places, one after the other, each before the old one is freed. How many\n"
           "there was memory for.")
      .def("free", &TensorPlaces::free, "start"_a, "end"_a, "Free the tensors of these places that hold one.")
      .def("addresses", &TensorPlaces::addresses, "int64 (n_places,): bytes, −1 where there is no tensor.")
      .def_prop_ro("active_bytes", [](const TensorPlaces& self) { return self.allocator().active_bytes(); })
      .def_prop_ro("peak_reserved_bytes",
                   [](const TensorPlaces& self) { return self.allocator().peak_reserved_bytes(); })
      .def_prop_ro("n_retries", [](const TensorPlaces& self) { return self.allocator().num_alloc_retries(); });

  module.def("on_demand", &on_demand, "setting"_a, "Memory is taken as a function of the tokens held: blocks, or pages.");
  module.def("regions", &regions, "setting"_a, nb::kw_only(), "region_units"_a, "granule_units"_a, "n_largest"_a,
             "Each sequence has a region, int64 (n,) units by request, placed by binary buddies of granules;\n"
             "``n_largest`` of the longest sequence fit at once.");
  module.def("prefixes", &prefixes, "setting"_a, nb::kw_only(), "block_tokens"_a, "chunk_start"_a, "chunk_id"_a,
             "n_chunks"_a, "chunk_tokens"_a,
             "Full blocks of prompts are shared. A unit is a token. The chunks of request i are\n"
             "``chunk_id[chunk_start[i]:chunk_start[i + 1]]``, int64, of so many distinct ones; ``chunk_tokens`` is 0\n"
             "where they are not known.");
  module.def("tensors", &tensors, "setting"_a, nb::kw_only(), "token_bytes"_a, "window"_a, "unit_bytes"_a,
             "Each request has tensors in the caching allocator: int64 (tensors,), bytes of a token in each, and the\n"
             "tokens that it looks back over (0: all).");
}
