"""A slice: its events, and every state that the whole trace had at them."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memscope.analysis import Analysis, load
from memscope.errors import TrustError, UsageError
from memscope.export.slices import Part, part_of_events, part_of_steps, slice_trace
from memscope.trace.container import read_container, write_container
from memscope.trace.marks import phase_spans
from memscope.trace.schema import EVENT_COLUMNS, MarkKind
from memscope.trace.snapshot.write import write_snapshot
from tests.naive_layout import random_layout
from tests.oom.planted import plant
from tests.rank_traces import Alloc, rank_trace, training

SHIPPED = Path(__file__).parents[2] / "traces"
NAMES = ("tiny-llama-train", "tiny-gpt2-generate", "tiny-out-of-memory")


def analysed(name: str) -> Analysis:
    return load(SHIPPED / f"{name}.memscope")


def assert_same_states(whole: Analysis, part: Part, sliced: Analysis, stride: int = 1) -> None:
    """Every state of the slice is that of the whole at the same event: compared column by column."""
    of_whole, of_slice = whole.device(part.device).lifetimes, sliced.device(part.device).lifetimes
    begin, _ = sliced.trace.event_range(part.device)
    for i in range(0, part.end - part.begin, stride):
        a, b = of_whole.state_at(part.begin + i), of_slice.state_at(begin + i)
        for name in ("address", "size_bytes", "stream_id", "pool_id", "is_large", "is_expandable"):
            assert np.array_equal(getattr(a.segments, name), getattr(b.segments, name)), (i, name)
        for name in ("segment_id", "address", "size_bytes", "state", "requested_bytes"):
            assert np.array_equal(getattr(a.blocks, name), getattr(b.blocks, name)), (i, name)
    usage, other = of_whole.usage, of_slice.usage
    within = slice(usage.index_of(part.begin), usage.index_of(part.end))
    for name in ("allocated_bytes", "active_bytes", "requested_bytes", "reserved_bytes"):
        assert np.array_equal(getattr(usage, name)[within], getattr(other, name)[1:]), name


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("share", [(0.0, 1.0), (0.0, 0.5), (0.3, 0.7), (0.6, 1.0), (0.5, 0.5)])
def test_a_slice_has_the_states_of_the_whole(name: str, share: tuple[float, float]) -> None:
    analysis = analysed(name)
    n = analysis.trace.n_events
    (part,) = part_of_events(analysis, *(min(int(x * n), n - 1) for x in share))
    sliced = Analysis(slice_trace(analysis, [part]))
    assert sliced.contradictions == ()
    for column in EVENT_COLUMNS:
        assert np.array_equal(getattr(sliced.trace, column), getattr(analysis.trace, column)[part.begin : part.end]), (
            column
        )
    assert_same_states(analysis, part, sliced, stride=97)


@given(seed=st.integers(0, 400), first=st.floats(0, 1), last=st.floats(0, 1))
def test_slices_of_random_traces_are_sound_and_never_hold_more_than_the_whole(
    seed: int, first: float, last: float
) -> None:
    analysis = Analysis(random_layout(seed, 50).trace())
    n = analysis.trace.n_events
    begin, end = sorted((int(first * (n - 1)), int(last * (n - 1))))
    (part,) = part_of_events(analysis, begin, end)
    sliced = Analysis(slice_trace(analysis, [part]))
    assert sliced.contradictions == ()
    # What predates the slice and is freed in it is known from below at least; what is requested is known exactly.
    whole, other = analysis.device().usage, sliced.device().usage
    within = slice(whole.index_of(begin), whole.index_of(end + 1))
    assert np.array_equal(whole.requested_bytes[within], other.requested_bytes[1:])
    assert np.array_equal(whole.reserved_bytes[within], other.reserved_bytes[1:])
    assert np.all(other.allocated_bytes[1:] <= whole.allocated_bytes[within])
    assert other.allocated_bytes[-1] == whole.allocated_bytes[within][-1]


def test_the_whole_as_a_slice_is_the_whole() -> None:
    analysis = analysed("tiny-llama-train")
    sliced = slice_trace(analysis, part_of_events(analysis, 0, analysis.trace.n_events - 1))
    assert sliced.metadata == analysis.trace.metadata
    for table in ("marks", "owners", "samples", "segments"):
        before, after = getattr(analysis.trace, table), getattr(sliced, table)
        for name, column in before.columns().items():
            assert np.array_equal(column, getattr(after, name)), (table, name)


def test_steps_keep_their_names_and_their_phases() -> None:
    analysis = analysed("tiny-llama-train")
    (part,) = part_of_steps(analysis, "1", "2")
    sliced = Analysis(slice_trace(analysis, [part]))
    steps = sliced.device().steps
    assert steps is not None
    assert steps.labels == ("1", "2")
    before = analysis.device().steps
    assert before is not None
    assert [int(e) for e in steps.end] == [int(e) - part.begin for e in before.end[1:3]]
    expected = [
        (s.label, max(s.begin, part.begin) - part.begin, min(s.end, part.end) - part.begin)
        for s in phase_spans(analysis.trace)
        if s.begin < part.end and s.end > part.begin
    ]
    assert [(s.label, s.begin, s.end) for s in phase_spans(sliced.trace)] == expected


def test_a_phase_that_was_open_begins_with_the_slice() -> None:
    analysis = analysed("tiny-llama-train")
    span = max(phase_spans(analysis.trace), key=lambda span: span.end - span.begin)
    middle = (span.begin + span.end) // 2
    sliced = slice_trace(analysis, part_of_events(analysis, middle, middle + 2))
    assert (sliced.marks.event[0], sliced.marks.kind[0]) == (0, MarkKind.PHASE_BEGIN)
    assert sliced.strings[sliced.marks.label_id[0]] == span.label


def test_owners_are_known_of_what_predates_the_slice() -> None:
    analysis = analysed("tiny-llama-train")
    (part,) = part_of_steps(analysis, "2", "2")
    sliced = Analysis(slice_trace(analysis, [part]))
    end, other = analysis.device().at(part.end - 1), sliced.end()
    assert other.ledger.rows == end.ledger.rows
    assert sorted(filter(None, map(sliced.device().owner_of, other.in_use_rows.tolist()))) == sorted(
        filter(None, map(analysis.device().owner_of, end.in_use_rows.tolist()))
    )


def test_the_cache_of_a_slice_is_that_of_the_whole_then() -> None:
    analysis = analysed("tiny-gpt2-generate")
    n = analysis.trace.n_events
    (part,) = part_of_events(analysis, n // 2, n - 1)
    sliced = Analysis(slice_trace(analysis, [part]))
    whole, lens = analysis.kv_lens(), sliced.kv_lens()
    assert bool(lens) == bool(whole)
    assert len(sliced.trace.cache_layers) >= 1
    assert lens.tokens_at(sliced.device().lifetimes.last_event) == whole.tokens_at(n - 1)


def test_a_slice_is_written_and_read_as_both_kinds(tmp_path: Path) -> None:
    analysis = analysed("tiny-llama-train")
    (part,) = part_of_steps(analysis, "1", "1")
    sliced = slice_trace(analysis, [part])
    read = read_container(write_container(sliced, tmp_path / "part.memscope"))
    assert read.metadata == sliced.metadata
    path = write_snapshot(sliced, tmp_path / "part.pickle")
    again = load(path)
    assert again.contradictions == ()
    assert again.device().usage.allocated_bytes.tolist() == Analysis(sliced).device().usage.allocated_bytes.tolist()
    assert len(path.read_bytes()) < 1 << 20


def test_torchs_own_reader_sums_the_slices_segments(tmp_path: Path) -> None:
    viz = pytest.importorskip("torch.cuda._memory_viz")
    analysis = analysed("tiny-llama-train")
    (part,) = part_of_steps(analysis, "1", "1")
    path = write_snapshot(slice_trace(analysis, [part]), tmp_path / "part.pickle")
    snapshot = pickle.loads(path.read_bytes())
    moment = analysis.device().at(part.end - 1)
    reserved = sum(segment["total_size"] for segment in snapshot["segments"])
    assert reserved == moment.reserved_bytes
    assert "total_allocated" in viz.segsum(snapshot) or viz.segsum(snapshot)
    assert viz.trace(snapshot)
    assert "<html" in viz.trace_plot(snapshot).lower() or "<script" in viz.trace_plot(snapshot)


def test_a_slice_says_that_it_is_one() -> None:
    analysis = analysed("tiny-llama-train")
    sliced = Analysis(slice_trace(analysis, part_of_events(analysis, 100, 200)))
    note = "a slice of a longer recording: events 100 to 200; they are numbered from 0 here"
    assert note in sliced.trace.metadata.notes
    assert not sliced.completeness.is_complete


def test_each_device_is_cut_by_its_own_steps() -> None:
    analysis = Analysis(rank_trace(training(10, 12, 14), training(20, 22, 24)))
    parts = part_of_steps(analysis, "1", "1")
    assert [part.device for part in parts] == [0, 1]
    sliced = Analysis(slice_trace(analysis, parts))
    assert sliced.contradictions == ()
    for part in parts:
        assert_same_states(analysis, part, sliced)


def test_events_of_one_device_leave_the_others_out() -> None:
    analysis = Analysis(rank_trace([Alloc("a", 10), Alloc("b", 12)], [Alloc("c", 20)]))
    sliced = slice_trace(analysis, part_of_events(analysis, 1, 2))
    assert sliced.devices == (0,)


def test_what_is_not_there_is_refused() -> None:
    analysis = analysed("tiny-llama-train")
    for first, last in ((-1, 5), (5, 4), (0, analysis.trace.n_events)):
        with pytest.raises(UsageError, match="are not in tiny-llama-train"):
            part_of_events(analysis, first, last)
    with pytest.raises(UsageError, match="comes before step"):
        part_of_steps(analysis, "2", "1")
    with pytest.raises(UsageError, match="has no step"):
        part_of_steps(analysis, "0", "7")
    bare = Analysis(plant("no-oom", 1).trace(has_segment_events=False))
    with pytest.raises(TrustError, match="cannot be sliced"):
        slice_trace(bare, part_of_events(bare, 0, 1))
