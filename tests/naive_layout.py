"""A slow, obvious allocator that makes traces with known states: the twin that lifetimes are checked against.

It is first-fit with the caching allocator's size rules, written with plain lists and no thought of speed, and it shares
no code with memscope but the trace builder.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from memscope.trace.builder import TraceBuilder
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import Action, BlockState
from memscope.trace.trace import Trace

MiB = 1 << 20


@dataclass
class NaiveBlock:
    address: int
    size: int
    state: BlockState = BlockState.INACTIVE
    requested: int = 0


@dataclass
class NaiveSegment:
    address: int
    size: int
    is_large: bool
    blocks: list[NaiveBlock] = field(default_factory=list)


@dataclass(frozen=True)
class Snapshot:
    """What a state looks like to a comparison: segments, and blocks as (address, size, state, requested)."""

    segments: tuple[tuple[int, int], ...]
    blocks: tuple[tuple[int, int, int, int], ...]


class NaiveLayout:
    """Segments as lists of blocks; every event is recorded with the state after it."""

    def __init__(self) -> None:
        self.segments: list[NaiveSegment] = []
        self.events: list[tuple[Action, int, int]] = []
        self.states: list[Snapshot] = [self.snapshot()]
        self._next_address = 1 << 40

    def snapshot(self) -> Snapshot:
        ordered = sorted(self.segments, key=lambda s: s.address)
        return Snapshot(
            tuple((s.address, s.size) for s in ordered),
            tuple(
                (b.address, b.size, int(b.state), b.requested if b.state != BlockState.INACTIVE else 0)
                for s in ordered
                for b in s.blocks
            ),
        )

    def _record(self, action: Action, address: int, size: int) -> None:
        self.events.append((action, address, size))
        self.states.append(self.snapshot())

    def malloc(self, requested: int) -> NaiveBlock:
        rounded = max(512, (requested + 511) // 512 * 512)
        is_large = rounded > MiB
        for segment in self.segments:
            for i, block in enumerate(segment.blocks):
                if segment.is_large == is_large and block.state == BlockState.INACTIVE and block.size >= rounded:
                    return self._take(segment, i, requested, rounded)
        size = (
            2 * MiB
            if not is_large
            else 20 * MiB
            if rounded < 10 * MiB
            else (rounded + 2 * MiB - 1) // (2 * MiB) * 2 * MiB
        )
        segment = NaiveSegment(self._next_address, size, is_large, [NaiveBlock(self._next_address, size)])
        # Every other segment follows directly on the one before: merging across that border would be a defect.
        self._next_address += size + (2 * MiB if len(self.segments) % 2 else 0)
        self.segments.append(segment)
        self._record(Action.SEGMENT_ALLOC, segment.address, size)
        return self._take(segment, 0, requested, rounded)

    def _take(self, segment: NaiveSegment, i: int, requested: int, rounded: int) -> NaiveBlock:
        block = segment.blocks[i]
        rest = block.size - rounded
        if rest > MiB or (not segment.is_large and rest >= 512):
            segment.blocks.insert(i + 1, NaiveBlock(block.address + rounded, rest))
            block.size = rounded
        block.state, block.requested = BlockState.ACTIVE_ALLOCATED, requested
        self._record(Action.ALLOC, block.address, requested)
        return block

    def free_request(self, block: NaiveBlock) -> None:
        block.state = BlockState.ACTIVE_PENDING_FREE
        self._record(Action.FREE_REQUESTED, block.address, block.requested)

    def free_complete(self, block: NaiveBlock) -> None:
        segment = next(s for s in self.segments if block in s.blocks)
        address, requested = block.address, block.requested
        block.state, block.requested = BlockState.INACTIVE, 0
        merged: list[NaiveBlock] = []
        for other in segment.blocks:
            if merged and merged[-1].state == other.state == BlockState.INACTIVE:
                merged[-1].size += other.size
            else:
                merged.append(other)
        segment.blocks = merged
        self._record(Action.FREE_COMPLETED, address, requested)

    def empty_cache(self) -> None:
        for segment in list(self.segments):
            if len(segment.blocks) == 1 and segment.blocks[0].state == BlockState.INACTIVE:
                self.segments.remove(segment)
                self._record(Action.SEGMENT_FREE, segment.address, segment.size)

    def trace(self, first_event: int = 0) -> Trace:
        """The trace of the events from one on: what a recording started there would hold."""
        builder = TraceBuilder()
        stack = builder.stacks.stack([builder.stacks.frame("step", "train.py", 7)])
        for action, address, size in self.events[first_event:]:
            builder.add_event(action, address=address, size_bytes=size, stack_id=stack)
        for segment in sorted(self.segments, key=lambda s: s.address):
            segment_id = builder.add_segment(
                address=segment.address, size_bytes=segment.size, is_large=segment.is_large
            )
            for block in segment.blocks:
                builder.add_block(
                    segment_id,
                    address=block.address,
                    size_bytes=block.size,
                    requested_bytes=block.requested,
                    state=block.state,
                )
        return builder.build(TraceMetadata(source="synthetic", alloc_conf=""))


def random_layout(seed: int, n_operations: int) -> NaiveLayout:
    """A layout after random allocations, frees (some completing later) and cache flushes."""
    rng = random.Random(seed)
    layout = NaiveLayout()
    live: list[NaiveBlock] = []
    pending: list[NaiveBlock] = []
    for _ in range(n_operations):
        choice = rng.random()
        if choice < 0.5 or not live:
            magnitude = rng.choice([600, 5_000, 300_000, 1 << 20, 3 << 20, 9 << 20, 12 << 20, 19 << 20])
            live.append(layout.malloc(rng.randint(1, magnitude)))
        elif choice < 0.9:
            block = live.pop(rng.randrange(len(live)))
            layout.free_request(block)
            if rng.random() < 0.8:
                layout.free_complete(block)
            else:
                pending.append(block)
        elif choice < 0.97 and pending:
            layout.free_complete(pending.pop(0))
        else:
            layout.empty_cache()
    return layout
