"""Recordings that were cut off are opened as far as they were drained, with the loss counted."""

from __future__ import annotations

import itertools
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from memscope.errors import InputFileError, UsageError
from memscope.lifetimes.device import DeviceLifetimes
from memscope.trace import schema
from memscope.trace.builder import TraceBuilder
from memscope.trace.categories import Category
from memscope.trace.metadata import TraceMetadata
from memscope.trace.open import open_trace
from memscope.trace.recording.assembling import join_traces
from memscope.trace.recording.folder import (
    CALLS_NAME,
    chunk_path,
    forget_versions,
)
from memscope.trace.recording.notes import AddressOwner, CacheLayerNote, MarkNote, OwnersNote, RecordingNotes
from memscope.trace.schema import Action, BlockState, MarkKind
from memscope.trace.trace import Trace
from tests.naive_layout import random_layout
from tests.trace.recording.written_recordings import WrittenRecording
from tests.trace.snapshot.snapshots import BASE


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


def test_what_was_drained_can_be_opened_by_the_name_of_the_file_to_come(tmp_path: Path) -> None:
    target = tmp_path / "run.memscope"
    recording = WrittenRecording(target)
    recording.drain(0)
    recording.drain(3)
    recording.drain(2)
    for path in (target, recording.folder):
        trace = open_trace(path)
        assert trace.size_bytes.tolist() == [1, 2, 3, 4, 5]
        assert trace.metadata.n_events_lost is None
        assert trace.metadata.notes[-1] == ("The recording was cut off: the events after its last drain are missing.")
        assert trace.metadata.source == "cuda"


def test_what_was_counted_after_the_last_drain_is_stated(tmp_path: Path) -> None:
    recording = WrittenRecording(tmp_path / "run.memscope")
    recording.drain(3)
    (recording.folder / CALLS_NAME).write_bytes(np.array([1003], "<i8").tobytes())
    metadata = open_trace(recording.folder).metadata
    assert metadata.n_events_lost == 1000
    assert metadata.notes[-1].startswith("The recording was cut off: at least 1,000 events")


def test_a_chunk_that_was_not_finished_does_not_count(tmp_path: Path) -> None:
    recording = WrittenRecording(tmp_path / "run.memscope")
    recording.drain(3)
    recording.drain(4)
    path = chunk_path(recording.folder, 1)
    path.with_name(path.name + ".partial").write_bytes(path.read_bytes()[:20])
    path.unlink()
    assert open_trace(recording.folder).size_bytes.tolist() == [1, 2, 3]


def test_of_stretches_with_a_gap_between_them_the_longest_is_taken(tmp_path: Path) -> None:
    recording = WrittenRecording(tmp_path / "run.memscope")
    recording.drain(0)
    recording.drain(4)
    mark = MarkNote((4,), 0, int(MarkKind.STEP), "before the gap")
    inside = MarkNote((14,), 0, int(MarkKind.STEP), "after it")
    owners = [
        OwnersNote((15,), (AddressOwner(0, BASE + 512 * 13, 0, 0, "fourteenth"), AddressOwner(0, BASE, 0, 0, "first")))
    ]
    recording.drain(10, n_overwritten=5, notes=RecordingNotes(marks=[mark, inside]))
    recording.drain(3, notes=RecordingNotes(owners=owners))
    trace = open_trace(recording.folder)
    assert trace.size_bytes.tolist() == [10, 11, 12, 13, 14, 15, 16, 17]
    assert trace.metadata.n_events_lost == 9
    assert trace.metadata.notes[0].startswith("5 events are missing")
    assert trace.metadata.notes[1].startswith("The trace is the longest of 2 stretches without a gap")
    assert [trace.strings[i] for i in trace.marks.label_id] == ["after it"]
    assert trace.marks.event.tolist() == [5]
    assert trace.owners.alloc_event.tolist() == [-1, 4]
    assert [trace.strings[i] for i in trace.owners.label_id] == ["first", "fourteenth"]


def test_what_was_noted_of_caches_survives_a_recording_that_was_cut_off(tmp_path: Path) -> None:
    recording = WrittenRecording(tmp_path / "run.memscope")
    layer = CacheLayerNote(2, 0, 1, 0, "DynamicLayer", 4, 64, 64, -1, -1)
    recording.drain(3, notes=RecordingNotes(cache_layers=[layer], cache_lengths=[2, 7, 0, 1, 10]))
    recording.drain(2, notes=RecordingNotes(cache_lengths=[5, 8, 0, 1, 11]))
    trace = open_trace(recording.folder)
    assert trace.cache_layers.event.tolist() == [2]
    assert trace.strings[trace.cache_layers.kind_id[0]] == "DynamicLayer"
    assert trace.cache_lengths.event.tolist() == [2, 5]
    assert trace.cache_lengths.n_tokens.tolist() == [10, 11]


@pytest.mark.parametrize("damage", ["nothing drained", "no JSON", "no list", "notes missing", "snapshot cut"])
def test_a_damaged_folder_is_refused_in_one_line(tmp_path: Path, damage: str) -> None:
    recording = WrittenRecording(tmp_path / "run.memscope")
    if damage != "nothing drained":
        recording.drain(2)
    path = chunk_path(recording.folder, 0)
    if damage == "no JSON":
        (recording.folder / "recording.json").write_text("{")
    elif damage == "no list":
        path.with_suffix(".json").write_text(json.dumps({"counts": 3}))
    elif damage == "notes missing":
        path.with_suffix(".json").unlink()
    elif damage == "snapshot cut":
        path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(InputFileError) as raised:
        open_trace(recording.folder)
    assert str(raised.value).count("\n") == 0


def test_of_a_chunk_that_was_kept_in_versions_the_newest_counts(tmp_path: Path) -> None:
    recording = WrittenRecording(tmp_path / "run.memscope")
    recording.drain(4)
    recording.drain(3)
    folder = recording.folder
    for number, version in ((1, 2), (1, 10)):
        recording.n_allocs, recording.n_chunks = 4, 1
        recording.drain(3 + version)
        for suffix in (".pickle", ".json"):
            written = chunk_path(folder, number).with_suffix(suffix)
            written.replace(chunk_path(folder, number, version).with_suffix(suffix))
    shutil.copy(chunk_path(folder, 1, 2), chunk_path(folder, 1))
    shutil.copy(chunk_path(folder, 1, 2).with_suffix(".json"), chunk_path(folder, 1).with_suffix(".json"))
    trace = open_trace(folder)
    assert trace.n_events == 4 + 13
    assert trace.metadata.n_events_lost is None
    forget_versions(folder, 1, 10)
    assert sorted(path.name for path in folder.glob("chunk-*")) == [
        *("chunk-000000.json", "chunk-000000.pickle"),
        *("chunk-000001-000010.json", "chunk-000001-000010.pickle"),
    ]
    assert open_trace(folder).n_events == 4 + 13
