"""Joined chunks are the recording that they were cut from."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from memscope.errors import UsageError
from memscope.lifetimes.device import DeviceLifetimes
from memscope.trace import schema
from memscope.trace.builder import TraceBuilder
from memscope.trace.categories import Category
from memscope.trace.metadata import TraceMetadata
from memscope.trace.recording._joining import join_traces
from memscope.trace.schema import Action, BlockState, MarkKind
from memscope.trace.trace import Trace
from tests.naive_layout import random_layout


def build(events: list[tuple], segments: list[tuple], *, salt: str = "") -> Trace:
    """A trace of (action, device, address, size, stream, pool, function) and final (device, address, size) segments."""
    builder = TraceBuilder()
    if salt:
        builder.strings.intern(salt)  # so that ids differ from part to part
    for action, device, address, size, stream, pool, function in events:
        frame = builder.stacks.frame(function, "train.py", len(function))
        outer = builder.stacks.frame("main", "train.py", 1)
        builder.add_event(
            action,
            device=device,
            address=address,
            size_bytes=size,
            stream=stream,
            pool=pool,
            stack_id=builder.stacks.stack([frame, outer]),
            time_ns=address,
        )
    for device, address, size in segments:
        segment = builder.add_segment(device=device, address=address, size_bytes=size, is_large=True)
        builder.add_block(segment, address=address, size_bytes=size, requested_bytes=0, state=BlockState.INACTIVE)
    return builder.build(TraceMetadata(source="cuda"))


def described(trace: Trace) -> list[tuple]:
    """Every event in words, free of ids."""
    return [
        (
            int(trace.device[i]),
            Action(int(trace.action[i])),
            int(trace.address[i]),
            int(trace.size_bytes[i]),
            int(trace.stream_handles[trace.stream_id[i]]),
            tuple(trace.pools[trace.pool_id[i]].tolist()),
            tuple(map(str, trace.stack(int(trace.stack_id[i])))),
            int(trace.time_ns[i]),
        )
        for i in range(len(trace))
    ]


def random_events(seed: int, n: int) -> list[tuple]:
    rng = random.Random(seed)
    return [
        (Action.ALLOC, 0, 1000 + i, rng.randrange(1, 99), rng.choice((0, 7, 9)), rng.choice(((0, 0), (0, 1))), name)
        for i in range(n)
        for name in [rng.choice(("forward", "backward", "step", f"f{i}"))]
    ]


@pytest.mark.parametrize("cuts", [(0, 40), (0, 13, 40), (0, 0, 5, 5, 39, 40)])
def test_joined_parts_are_the_whole(cuts: tuple[int, ...]) -> None:
    events = random_events(1, 40)
    parts = [
        build(events[a:b], [(0, 1000, 4096)], salt=f"part {i}") for i, (a, b) in enumerate(itertools.pairwise(cuts))
    ]
    joined = join_traces(parts)
    assert described(joined) == described(build(events, []))
    assert len(joined.stacks) == len(build(events, []).stacks)
    assert joined.segments.address.tolist() == [1000]


def test_events_of_each_device_stay_together_and_in_order() -> None:
    def on(device: int, *addresses: int) -> list[tuple]:
        return [(Action.ALLOC, device, address, 8, 0, (0, 0), "f") for address in addresses]

    joined = join_traces([build(on(0, 1, 2) + on(1, 10), []), build(on(1, 11), []), build(on(0, 3) + on(2, 20), [])])
    assert list(zip(joined.device.tolist(), joined.address.tolist(), strict=True)) == [
        (0, 1),
        (0, 2),
        (0, 3),
        (1, 10),
        (1, 11),
        (2, 20),
    ]


def test_marks_samples_and_owners_move_with_their_events() -> None:
    def part(first: int) -> Trace:
        builder = TraceBuilder()
        builder.add_mark(MarkKind.STEP, str(first), time_ns=first)
        builder.add_event(Action.ALLOC, address=first, size_bytes=8)
        builder.add_sample(time_ns=first, device=0, device_used_bytes=first)
        builder.add_event(Action.ALLOC, address=first + 1, size_bytes=8)
        builder.set_owner(1, Category.WEIGHTS, f"w{first}")
        builder.set_owner_at(0, first + 5, Category.GRADIENTS, f"old {first}")
        builder.add_mark(MarkKind.STEP, "end", time_ns=first)
        builder.add_cache_layer(cache_id=0, layer=first, kind=f"kind {first}", n_sequences=1)
        builder.add_cache_length(0, first)
        return builder.build(TraceMetadata(source="cuda"))

    joined = join_traces([part(100), part(200)])
    assert joined.marks.event.tolist() == [0, 2, 2, 4]
    assert [joined.string(int(i)) for i in joined.marks.label_id] == ["100", "end", "200", "end"]
    assert joined.samples.event.tolist() == [1, 3]
    assert joined.cache_layers.event.tolist() == joined.cache_lengths.event.tolist() == [2, 4]
    assert [joined.string(int(i)) for i in joined.cache_layers.kind_id] == ["kind 100", "kind 200"]
    # What predates the second part was made in the first, or is named there by its address.
    assert joined.owners.alloc_event.tolist() == [-1, 1, 3]
    assert [joined.string(int(i)) for i in joined.owners.label_id] == ["old 100", "w100", "w200"]


def test_a_recording_cut_anywhere_has_the_same_lifetimes() -> None:
    whole = random_layout(5, 300).trace()
    columns = {name: getattr(whole, name) for name in schema.EVENT_COLUMNS}
    for cut in (0, 1, 150, len(whole)):
        parts = [
            Trace(
                **{name: column[chosen] for name, column in columns.items()},
                segments=whole.segments,
                blocks=whole.blocks,
                stacks=whole.stacks,
                strings=whole.strings,
                stream_handles=whole.stream_handles,
                pools=whole.pools,
                metadata=whole.metadata,
            )
            for chosen in (slice(0, cut), slice(cut, None))
        ]
        joined = DeviceLifetimes(join_traces(parts), 0)
        expected = DeviceLifetimes(whole, 0)
        assert np.array_equal(joined.usage.allocated_bytes, expected.usage.allocated_bytes)
        assert np.array_equal(joined.allocations.block_bytes, expected.allocations.block_bytes)


def test_nothing_cannot_be_joined() -> None:
    with pytest.raises(UsageError, match="nothing to join"):
        join_traces([])
