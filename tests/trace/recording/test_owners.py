"""Owners go to what lay at their address at their count; tags beat them, and what no one owned may be temporary."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from memscope.trace.builder import TraceBuilder
from memscope.trace.categories import Category
from memscope.trace.metadata import TraceMetadata
from memscope.trace.recording._owners import DevicePlaces
from memscope.trace.recording._placing import place_notes
from memscope.trace.recording.notes import (
    COUNTED,
    TAGGED_SPAN,
    TAGGED_TENSOR,
    AddressOwner,
    MarkNote,
    OwnersNote,
    RecordingNotes,
    TagNote,
)
from memscope.trace.schema import Action, MarkKind
from memscope.trace.trace import Trace
from tests.trace.recording.small_traces import A, B, C, trace_of


def random_trace(rng: random.Random) -> Trace:
    """Allocs and frees at three addresses of two devices, with segment events among them."""
    builder = TraceBuilder()
    for device in sorted(rng.randrange(2) for _ in range(rng.randrange(40))):
        action = rng.choice([Action.ALLOC, Action.FREE_REQUESTED, Action.FREE_COMPLETED, Action.SEGMENT_ALLOC])
        builder.add_event(action, device=device, address=rng.choice([512, 1024, 4096]), size_bytes=512)
    return builder.build(TraceMetadata(source="cuda"))


@pytest.mark.parametrize("seed", range(30))
def test_each_place_is_where_a_walk_over_the_events_finds_it(seed: int) -> None:
    rng = random.Random(seed)
    trace = random_trace(rng)
    for device in trace.devices:
        first_call = rng.randrange(3)
        places = DevicePlaces(trace, device, first_call)
        events = [event for event in range(len(trace)) if trace.device[event] == device]
        after = {first_call: events[0]}
        for event in events:
            if trace.action[event] in COUNTED:
                after[first_call + len(after)] = event + 1
        counts = np.arange(60)
        assert places.events_after(counts).tolist() == [after.get(n, -1) for n in counts.tolist()]
        for address in (512, 1024, 4096, 8192):
            at = [event for event in events if trace.address[event] == address]
            allocs = [event for event in at if trace.action[event] == Action.ALLOC]
            frees = [event for event in at if trace.action[event] == Action.FREE_REQUESTED]
            for event in range(len(trace)):
                where = np.array([address]), np.array([event])
                assert places.alloc_before(*where).tolist() == [max((e for e in allocs if e < event), default=-1)]
                if event in allocs:
                    assert places.free_after(*where).tolist() == [min((e for e in frees if e > event), default=-1)]


def test_calls_between_counts_are_cut_to_what_the_trace_has() -> None:
    trace = trace_of(("segment", A), ("alloc", A), ("free", A), ("segment", B), ("alloc", B))
    places = DevicePlaces(trace, 0, 10)  # the calls 11 to 14 are events 1, 2, 3, 5
    assert places.calls_between((11,), (13,)).tolist() == [2, 3]
    assert places.calls_between((0,), (11,)).tolist() == [1]
    assert places.calls_between((12,), None).tolist() == [3, 5]
    assert places.calls_between((12,), (99,)).tolist() == [3, 5]
    assert places.calls_between((0,), (9,)).tolist() == []
    assert places.calls_between((20,), None).tolist() == []


def test_a_device_found_after_a_note_was_made_is_not_counted_in_it() -> None:
    places = DevicePlaces(trace_of(("alloc", A)), 0, 0)
    assert places.is_counted_in((3,))
    assert not places.is_counted_in(())


WEIGHTS, GRADIENTS, ACTIVATIONS = int(Category.WEIGHTS), int(Category.GRADIENTS), int(Category.ACTIVATIONS)


def owners(trace: Trace) -> list[tuple[int, int, str]]:
    """Event, category and label."""
    table = trace.owners
    labels = [trace.strings[i] for i in table.label_id]
    return list(zip(table.alloc_event.tolist(), table.category.tolist(), labels, strict=True))


def test_an_owner_goes_to_what_lay_at_the_address_at_its_count() -> None:
    trace = trace_of(("segment", A), ("alloc", A), ("free", A), ("segment", B), ("alloc", A), ("free", A), ("alloc", A))
    log = RecordingNotes(
        owners=[
            OwnersNote((1,), (AddressOwner(0, A, WEIGHTS, 0, "first"),)),
            OwnersNote(
                (4,),
                (
                    AddressOwner(0, A, WEIGHTS, 0, "second"),
                    AddressOwner(0, C, WEIGHTS, 0, "older"),
                    AddressOwner(1, A, WEIGHTS, 0, "no"),
                ),
            ),
            OwnersNote((7,), (AddressOwner(0, A, GRADIENTS, 1, "third"),)),
            OwnersNote((8,), (AddressOwner(0, A, WEIGHTS, 0, "beyond the end"),)),
        ]
    )
    placed = place_notes(trace, log, {0: 0})
    assert owners(placed) == [
        (-1, WEIGHTS, "older"),
        (1, WEIGHTS, "first"),
        (5, WEIGHTS, "second"),
        (8, GRADIENTS, "third"),
    ]
    assert placed.owners.address.tolist() == [C, -1, -1, -1]
    later = place_notes(trace, log, {0: 1})  # the trace begins one call later: every note stands one call earlier in it
    assert [event for event, _, _ in owners(later)] == [-1, -1, 1, 5, 8]


def test_the_strongest_owner_wins_and_of_weights_the_last_name() -> None:
    trace = trace_of(("alloc", A), ("alloc", B), ("alloc", C))
    rows = (
        AddressOwner(0, A, ACTIVATIONS, 7, "saved"),
        AddressOwner(0, A, GRADIENTS, 1, "w.grad"),
        AddressOwner(0, B, WEIGHTS, 0, "old.name"),
        AddressOwner(0, C, ACTIVATIONS, 7, "first"),
    )
    again = (
        AddressOwner(0, B, WEIGHTS, 0, "new.name"),
        AddressOwner(0, C, ACTIVATIONS, 7, "second"),
        AddressOwner(0, A, ACTIVATIONS, 7, "late"),
    )
    placed = place_notes(trace, RecordingNotes(owners=[OwnersNote((3,), rows), OwnersNote((3,), again)]), {0: 0})
    assert owners(placed) == [(0, GRADIENTS, "w.grad"), (1, WEIGHTS, "new.name"), (2, ACTIVATIONS, "first")]
    assert not placed.owners.tagged.any()


def test_tags_beat_owners_the_inner_block_the_outer_and_a_tensors_own_both() -> None:
    trace = trace_of(("alloc", A), ("alloc", B), ("alloc", C), ("alloc", C + 512))
    unknown = int(Category.UNKNOWN)
    log = RecordingNotes(
        owners=[
            OwnersNote((4,), (AddressOwner(0, A, WEIGHTS, 0, "w"),)),
            OwnersNote((4,), (AddressOwner(0, C, unknown, TAGGED_TENSOR, "mine"),)),
        ],
        tags=[TagNote((1,), (3,), unknown, "inner"), TagNote((0,), (3,), unknown, "outer")],
        open_tags=[TagNote((3,), None, unknown, "open")],
    )
    read = RecordingNotes.joined([RecordingNotes(), RecordingNotes.from_json(json.loads(json.dumps(log.to_json())))])
    placed = place_notes(trace, read, {0: 0})
    assert [label for _, _, label in owners(placed)] == ["outer", "inner", "mine", "open"]
    assert placed.owners.tagged.all()
    assert TAGGED_TENSOR < TAGGED_SPAN < 0


def test_what_one_phase_made_and_freed_unowned_was_temporary() -> None:
    trace = trace_of(("alloc", A), ("alloc", B), ("free", B), ("alloc", C), ("free", A), ("alloc", B), ("free", C))
    begin, end = int(MarkKind.PHASE_BEGIN), int(MarkKind.PHASE_END)
    marks = [
        MarkNote((1,), 0, begin, "forward", True),
        MarkNote((2,), 0, begin, "the user's"),
        MarkNote((5,), 0, end, "forward", True),
        MarkNote((5,), 0, begin, "backward", True),
    ]
    placed = place_notes(trace, RecordingNotes(marks=marks), {0: 0})
    assert owners(placed) == [(1, int(Category.TEMPORARIES), "forward")]
    assert placed.marks.event.tolist() == [1, 2, 5, 5]


def _visited(log: RecordingNotes, marks_shift_ns: int = 0) -> list[str]:
    """Names of what one backward pass allocated and freed, with two modules come into at known times."""
    builder = TraceBuilder()
    for number in range(4):
        at = 10_000_000 + 1_000_000 * number
        builder.add_event(Action.ALLOC, address=0x1000 + 512 * number, size_bytes=512, time_ns=at)
    for number in range(4):
        address, at = 0x1000 + 512 * number, 20_000_000 + 1_000_000 * number
        builder.add_event(Action.FREE_REQUESTED, address=address, size_bytes=512, time_ns=at)
        builder.add_event(Action.FREE_COMPLETED, address=address, size_bytes=512, time_ns=at)
    log.marks[:] = [
        MarkNote((0,), 9_000_000 + marks_shift_ns, int(MarkKind.PHASE_BEGIN), "backward", True),
        MarkNote((12,), 30_000_000 + marks_shift_ns, int(MarkKind.PHASE_END), "backward", True),
        MarkNote((6,), 20_500_000 + marks_shift_ns, int(MarkKind.STEP), "0", True),
    ]
    log.marks.sort(key=lambda mark: mark.calls)
    placed = place_notes(builder.build(TraceMetadata(source="cuda")), log, {0: 0})
    return [placed.strings[i] for i in placed.owners.label_id]


def test_temporaries_are_named_by_the_module_last_come_into() -> None:
    log = RecordingNotes(visits=[8_000_000, "before", 10_500_000, "lm_head", 12_500_000, "norm", 12_800_000, ""])
    assert _visited(log) == ["backward", "backward of lm_head", "backward of lm_head", "backward"]
    again = RecordingNotes.from_json(RecordingNotes(visits=log.visits).to_json())
    assert again.visits == log.visits


def test_modules_are_left_out_where_the_clocks_disagree() -> None:
    log = RecordingNotes(visits=[10_500_000, "lm_head"])
    assert set(_visited(log, marks_shift_ns=2_000_000)) == {"backward"}
    assert "backward of lm_head" in _visited(log)


@pytest.mark.parametrize("seed", range(20))
def test_owners_placed_a_few_at_a_time_are_those_placed_at_once(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(seed)
    trace = random_trace(rng)
    rows = [
        AddressOwner(rng.randrange(2), rng.choice([512, 1024, 4096]), rng.randrange(4), rng.randrange(-1, 3), name)
        for name in "abcdef"
    ]
    notes = RecordingNotes(
        owners=[
            OwnersNote((n, n), tuple(rng.sample(rows, rng.randrange(1, 6))))
            for n in sorted(rng.choices(range(20), k=12))
        ]
    )
    at_once = owners(place_notes(trace, notes, {}))
    monkeypatch.setattr("memscope.trace.recording._owners._ROWS_AT_ONCE", 3)
    assert owners(place_notes(trace, notes, {})) == at_once
