"""A program that serves from key/value caches on the simulated allocator, and knows what each of its tensors holds."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass

import numpy as np

from memscope.analysis import Analysis
from memscope.device.limits import Limits
from memscope.kv_cache.lens import KvLens
from memscope.kv_cache.series import SPLITS
from memscope.replay.caching.allocator import CachingAllocator
from memscope.replay.config import CachingAllocatorConfig
from memscope.trace.builder import TraceBuilder
from memscope.trace.cache_labels import cache_label
from memscope.trace.categories import Category
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import NONE_ID, Action, TieRule
from memscope.trace.trace import Trace
from tests.replay.recordings import add_final_state

MiB = 1 << 20


@dataclass
class Tensor:
    """``tokens_of`` says what share of it holds tokens, for a cache's length; None: nobody was told."""

    address: int
    requested_bytes: int
    begin: int
    label: str | None = None
    cache_id: int = NONE_ID
    rate_bytes: int = 0
    limit_tokens: int | None = None
    is_static: bool = False
    is_told: bool = True
    stale: int | None = None
    end: int | None = None


@dataclass
class Cache:
    """One generation's: its tensors by layer and part, and the lengths that were noted (moment, tokens)."""

    cache_id: int
    tensors: dict[tuple[int, str], Tensor] = dataclasses.field(default_factory=dict)
    noted: list[tuple[int, int]] = dataclasses.field(default_factory=list)


class Program:
    """Requests go in; ``analysis`` is what a recording shows, ``truth`` what was really held after each event."""

    def __init__(self, conf: str = "", *, total_bytes: int = 80 << 30, sets_owners: bool = True) -> None:
        self.conf, self.total_bytes, self.sets_owners = conf, total_bytes, sets_owners
        config = CachingAllocatorConfig.parse(conf)
        self.allocator = CachingAllocator(config, limits=Limits(total_bytes), tie_rule=TieRule.SEGMENT_AGE)
        self.builder = TraceBuilder()
        self.tensors: list[Tensor] = []
        self.caches: dict[int, Cache] = {}

    @property
    def moment(self) -> int:
        """Index of the moment after the last event."""
        return self.builder.n_events

    def malloc(self, requested_bytes: int, label: str | None = None, category: Category = Category.KV_CACHE) -> Tensor:
        """Allocate; with a label it is the category's."""
        address = self.allocator.malloc(requested_bytes)
        event = self._drain(Action.ALLOC)
        tensor = Tensor(address, requested_bytes, event + 1, label)
        if label is not None:
            if self.sets_owners:
                self.builder.set_owner(event, category, label)
            if category == Category.KV_CACHE:
                self.tensors.append(tensor)
        return tensor

    def free(self, tensor: Tensor, *, waits: bool = False) -> None:
        """Free, at once or later (``complete``)."""
        self.allocator.free(tensor.address, waits=waits)
        event = self._drain(Action.FREE_REQUESTED)
        tensor.stale = event + 1 if tensor.stale is None else min(tensor.stale, event + 1)
        if not waits:
            tensor.end = self.moment

    def complete(self, tensor: Tensor) -> None:
        """Complete a free that waited."""
        self.allocator.complete_free(tensor.address)
        self._drain(Action.FREE_COMPLETED)
        tensor.end = self.moment

    def _drain(self, wanted: Action) -> int:
        found = NONE_ID
        for action, address, size, stream, pool in self.allocator.drain_events():
            event = self.builder.add_event(
                action, address=address, size_bytes=size, stream=stream, pool=pool, time_ns=1_000 * self.moment
            )
            found = event if action == wanted else found
        return found

    def cache(self) -> Cache:
        """A new cache; they are numbered from 1."""
        cache = Cache(len(self.caches) + 1)
        self.caches[cache.cache_id] = cache
        return cache

    def dynamic(
        self, cache: Cache, layer: int, part: str, n_tokens: int, rate_bytes: int, window: int | None = None
    ) -> None:
        """Make a tensor anew for so many tokens, beside the old one, which is then freed."""
        key = layer, part
        old = cache.tensors.get(key)
        new = self.malloc(n_tokens * rate_bytes, cache_label(cache.cache_id, layer, part))
        new.cache_id, new.rate_bytes, new.limit_tokens = cache.cache_id, rate_bytes, window
        cache.tensors[key] = new
        if old is not None:
            old.stale = new.begin
            self.free(old)

    def static(self, cache: Cache, layer: int, part: str, capacity: int, rate_bytes: int) -> None:
        """Allocate for so many tokens."""
        tensor = self.malloc(capacity * rate_bytes, cache_label(cache.cache_id, layer, part))
        tensor.cache_id, tensor.rate_bytes, tensor.limit_tokens = cache.cache_id, rate_bytes, capacity
        tensor.is_static = True
        cache.tensors[layer, part] = tensor

    def describe(self, cache: Cache, layer: int, n_sequences: int, rate_bytes: int, **limits: int) -> None:
        """Note how a layer keeps tokens; keys and values take as much."""
        self.builder.add_cache_layer(
            cache_id=cache.cache_id,
            layer=layer,
            kind="StaticLayer" if "capacity_tokens" in limits else "DynamicLayer",
            n_sequences=n_sequences,
            key_token_bytes=rate_bytes // n_sequences,
            value_token_bytes=rate_bytes // n_sequences,
            **limits,
        )

    def note(self, cache: Cache, n_tokens: int) -> None:
        """Note a cache's length."""
        self.builder.add_cache_length(cache.cache_id, n_tokens, 1_000 * self.moment)
        cache.noted.append((self.moment, n_tokens))

    def drop(self, cache: Cache) -> None:
        """Free all of a cache."""
        for tensor in cache.tensors.values():
            self.free(tensor)
        cache.tensors.clear()

    def truth(self, index: int) -> dict[str, int]:
        """What the cache's bytes are at a moment, by asking every tensor."""
        split = dict.fromkeys(("token_bytes", "unused_bytes", "stale_bytes", "untold_bytes"), 0)
        for tensor in self.tensors:
            if tensor.begin > index or (tensor.end is not None and tensor.end <= index):
                continue
            if tensor.stale is not None and tensor.stale <= index:
                split["stale_bytes"] += tensor.requested_bytes
                continue
            tokens = self._tokens(tensor, index)
            if tokens is None:
                split["untold_bytes"] += tensor.requested_bytes
            else:
                split["token_bytes"] += tokens
                split["unused_bytes"] += tensor.requested_bytes - tokens
        return split

    def _tokens(self, tensor: Tensor, index: int) -> int | None:
        if not tensor.is_told:
            return None
        if not tensor.is_static:
            most = tensor.limit_tokens
            return tensor.requested_bytes if most is None else min(tensor.requested_bytes, most * tensor.rate_bytes)
        noted = self.caches[tensor.cache_id].noted
        if not noted:
            return None
        length = next((tokens for moment, tokens in reversed(noted) if moment <= index), noted[0][1])
        return None if length < 0 else min(length, tensor.limit_tokens or 0) * tensor.rate_bytes

    def trace(self) -> Trace:
        """The recording so far, with the final state."""
        builder = copy.deepcopy(self.builder)
        add_final_state(builder, self.allocator)
        config = CachingAllocatorConfig.parse(self.conf)
        metadata = TraceMetadata(
            source="synthetic",
            tie_rule=TieRule.SEGMENT_AGE,
            alloc_conf=self.conf,
            allocator_settings={
                "max_split_size": config.max_split_bytes or -1,
                "expandable_segments": config.is_expandable,
            },
            device_total_bytes={0: self.total_bytes},
            has_pool_ids=True,
        )
        return builder.build(metadata)

    def analysis(self) -> Analysis:
        """The recording, analysed."""
        return Analysis(self.trace())


def generate(
    program: Program,
    *,
    prompt: int,
    n_new: int,
    n_layers: int = 3,
    rate_bytes: int = 64 * 1024,
    n_sequences: int = 2,
    capacity: int | None = None,
    window: int | None = None,
) -> Cache:
    """What ``generate()`` does with its cache: a prompt, then a token at a time; static where a capacity is given."""
    cache = program.cache()
    for step in range(n_new + 1):
        length = prompt + step
        for layer in range(n_layers):
            for part in ("keys", "values"):
                if capacity is None:
                    made = length if window is None or step == 0 else min(length, window + 1)
                    program.dynamic(cache, layer, part, made, rate_bytes, window)
                elif step == 0:
                    program.static(cache, layer, part, capacity, rate_bytes)
            program.free(program.malloc(3 * MiB))
            if step == 0:
                limits = {"capacity_tokens": capacity} if capacity is not None else {}
                limits |= {"window_tokens": window} if window is not None else {}
                program.describe(cache, layer, n_sequences, rate_bytes, **limits)
        program.note(cache, length)
    return cache


def serving_trace() -> Trace:
    """A cache that grew and was dropped, then a static one."""
    program = Program()
    program.drop(generate(program, prompt=100, n_new=40, n_layers=4, rate_bytes=100_000))
    generate(program, prompt=20, n_new=10, n_layers=4, rate_bytes=131_072, capacity=200)
    return program.trace()


def assert_true(program: Program) -> KvLens:
    """The series, and the moments, are the program's truth."""
    lens = program.analysis().opinions().kv_lens
    usage = lens.device.lifetimes.usage
    for index in range(len(usage)):
        truth = program.truth(index)
        assert {name: int(getattr(lens.series, name)[index]) for name in truth} == truth
        total = lens.total_at(usage.event_at(index))
        assert {name: getattr(total, name) for name in SPLITS} == {
            name: int(getattr(lens.series, name)[index]) for name in SPLITS
        }
    table = lens.device.lifetimes.allocations
    held = lens.device.lifetimes.weighted_usage(lens.parts.rows, table.block_bytes[lens.parts.rows])
    np.testing.assert_array_equal(lens.series.block_bytes, held)
    return lens
