"""Each finding on a run that has its cause, and none on one that has not."""

from __future__ import annotations

import numpy as np
import pytest

from memscope.analysis import Analysis, load
from memscope.findings.finding import Finding, Findings, Severity, in_order
from memscope.replay.allocator import SimulatedOutOfMemoryError
from memscope.trace.builder import TraceBuilder
from memscope.trace.categories import Category
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import Action, MarkKind
from tests.findings.traces import SHIPPED, analysed
from tests.replay.recordings import Recorder

MiB = 1 << 20


def kinds(findings: Findings) -> list[str]:
    return [finding.kind for finding in findings.findings]


def fragmented(n_pairs: int = 40) -> Recorder:
    """Segments of 20 MiB, in each of which 4 MiB stay live when 30 MiB more are taken."""
    recorder = Recorder()
    pairs = [(recorder.allocator.malloc(2 * MiB), recorder.allocator.malloc(8 * MiB)) for _ in range(n_pairs)]
    for _, large in pairs:
        recorder.allocator.free(large)
    recorder.allocator.malloc(30 * MiB)
    return recorder


def test_pinned_memory_is_found_with_its_bytes_and_pins() -> None:
    analysis = analysed(fragmented())
    (found,) = analysis.opinions(0).findings.of_kind("fragmentation")
    assert found.severity is Severity.SEVERE
    # Two pairs to a segment, 20 segments: the two of 8 MiB are free in each.
    assert found.bytes == 20 * 16 * MiB
    assert found.evidence["reserved_bytes"] == 400 * MiB
    state = analysis.at(found.event, 0).fragmentation.overall
    assert found.bytes == state.free_in_split_segments_bytes
    assert found.view == "map"
    assert found.rows


def test_free_memory_that_could_go_back_is_no_fragmentation() -> None:
    recorder = Recorder()
    live = [recorder.allocator.malloc(20 * MiB) for _ in range(40)]
    for address in live[:-1]:
        recorder.allocator.free(address)
    assert "fragmentation" not in kinds(analysed(recorder).opinions(0).findings)


def test_free_memory_between_steps_is_no_fragmentation() -> None:
    recorder = Recorder()
    for _ in range(3):
        pairs = [(recorder.allocator.malloc(2 * MiB), recorder.allocator.malloc(8 * MiB)) for _ in range(40)]
        for i, pair in enumerate(pairs):
            recorder.allocator.free(pair[1])
            if i % 2:
                recorder.allocator.free(pair[0])
        for pair in pairs[::2]:
            recorder.allocator.free(pair[0])
    analysis = analysed(recorder)
    assert analysis.device(0).fragmentation_series.overall.free_in_split_segments_bytes.max() > 200 * MiB
    assert "fragmentation" not in kinds(analysis.opinions(0).findings)


def test_layers_loaded_one_by_one_without_stacks_are_no_leak() -> None:
    recorder = Recorder()
    for _ in range(32):
        for size in (16, 16, 4, 4, 44, 44, 44):
            recorder.allocator.free(recorder.allocator.malloc(2 * size * MiB))
            recorder.allocator.malloc(size * MiB)
    findings = analysed(recorder).opinions(0).findings
    assert "leak" not in kinds(findings)
    assert any("leaks were not looked for" in note for note in findings.notes)


def test_a_pool_that_only_grows_is_found() -> None:
    recorder = Recorder()
    malloc, free = recorder.allocator.malloc, recorder.allocator.free
    kept = []
    # Each round needs a little more than the block that was freed: it never fits.
    for i in range(30):
        block = malloc((12 + 2 * i) * MiB)
        kept.append(malloc(1200 << 10))
        free(block)
    (found,) = analysed(recorder).opinions(0).findings.of_kind("growing-pool")
    assert found.bytes > 64 * MiB
    assert found.evidence["size_class"] == "large"


def test_a_pool_that_grows_with_what_is_in_use_is_no_finding() -> None:
    recorder = Recorder()
    for _ in range(60):
        recorder.allocator.malloc(20 * MiB)
    assert "growing-pool" not in kinds(analysed(recorder).opinions(0).findings)


def test_frees_that_wait_for_a_stream_are_found_with_what_was_taken_meanwhile() -> None:
    recorder = Recorder()
    kept = recorder.allocator.malloc(40 * MiB)
    waiting = [recorder.allocator.malloc(20 * MiB) for _ in range(4)]
    for address in waiting:
        recorder.allocator.free(address, waits=True)
    recorder.allocator.malloc(20 * MiB)
    for address in waiting:
        recorder.allocator.complete_free(address)
    recorder.allocator.free(kept)
    (found,) = analysed(recorder).opinions(0).findings.of_kind("stream-delayed-frees")
    assert found.bytes == 80 * MiB
    assert found.severity is Severity.SEVERE
    assert found.evidence["n_pending"] == 4
    assert found.evidence["n_segments_taken_meanwhile"] == 1
    assert found.evidence["segment_bytes_taken_meanwhile"] == 20 * MiB
    assert found.evidence["mean_wait_ns"] is None


def test_frees_that_complete_at_once_do_not_wait() -> None:
    recorder = Recorder()
    for _ in range(5):
        recorder.allocator.free(recorder.allocator.malloc(200 * MiB))
    assert "stream-delayed-frees" not in kinds(analysed(recorder).opinions(0).findings)


def test_rounding_is_found() -> None:
    recorder = Recorder("roundup_power2_divisions:2")
    for _ in range(5):
        recorder.allocator.malloc(33 * MiB)
    (found,) = analysed(recorder).opinions(0).findings.of_kind("rounding")
    # Between 32 and 64 MiB there is one step, at 48.
    assert found.bytes == 5 * 15 * MiB
    assert found.severity is Severity.SEVERE
    assert found.evidence["n_blocks_of_half"] == 3
    recorder = Recorder()
    for _ in range(5):
        recorder.allocator.malloc(33 * MiB)
    assert "rounding" not in kinds(analysed(recorder).opinions(0).findings)


def test_reclaims_of_the_allocator_are_counted_with_their_bytes() -> None:
    recorder = Recorder(total=100 * MiB, knows_total=True)
    for i in range(12):
        size = (60 if i % 2 else 70) * MiB
        recorder.allocator.free(recorder.allocator.malloc(size))
        # What was freed is in the way of the next one, which is larger or takes another segment.
        recorder.allocator.free(recorder.allocator.malloc(80 * MiB + i * 2 * MiB if i < 10 else 99 * MiB))
    analysis = analysed(recorder)
    (found,) = analysis.opinions(0).findings.of_kind("retries")
    assert found.evidence["n_retries"] == recorder.allocator.stats.n_retries
    trace = analysis.trace
    assert found.bytes == trace.size_bytes[trace.action == Action.SEGMENT_FREE].sum()
    assert found.evidence["recorded_ns"] is None
    assert found.evidence["modelled_ns"] > 0


def test_emptying_the_cache_in_every_round_is_found_as_the_programs_own() -> None:
    recorder = Recorder()
    # The device had 100 MiB: a request of 40 MiB while 40 are reserved was not refused.
    recorder.allocator.free(recorder.allocator.malloc(100 * MiB))
    for _ in range(25):
        recorder.allocator.empty_cache()
        recorder.allocator.free(recorder.allocator.malloc(40 * MiB))
    findings = analysed(recorder).opinions(0).findings
    (found,) = findings.of_kind("cache-emptied")
    # The first one, of 100 MiB, may have been a reclaim: 140 would have been more than the device is known to have.
    assert found.evidence["n_calls"] == 24
    assert found.evidence["given_back_bytes"] == 24 * 40 * MiB
    assert found.evidence["taken_since_bytes"] == 24 * 40 * MiB
    assert "retries" not in kinds(findings)


def test_where_it_cannot_be_told_who_gave_memory_back_that_is_said() -> None:
    recorder = Recorder()
    for _ in range(25):
        recorder.allocator.free(recorder.allocator.malloc(40 * MiB))
        recorder.allocator.empty_cache()
    findings = analysed(recorder).opinions(0).findings
    (found,) = findings.of_kind("cache-given-back")
    assert found.evidence["n_reclaims"] == 24
    assert "does not tell which" in found.text
    assert not {"retries", "cache-emptied"} & set(kinds(findings))


def test_driver_calls_that_go_on_are_found() -> None:
    recorder = Recorder()
    for _ in range(50):
        recorder.allocator.free(recorder.allocator.malloc(40 * MiB))
        recorder.allocator.empty_cache()
    (found,) = analysed(recorder).opinions(0).findings.of_kind("driver-calls")
    assert found.evidence["n_taken"] == 25


def test_a_kv_cache_that_grows_by_copying_is_found_with_its_copies() -> None:
    analysis = load(SHIPPED / "tiny-gpt2-generate.memscope")
    (found,) = analysis.opinions(0).findings.of_kind("kv-growth")
    table = analysis.device(0).allocations
    rows = np.flatnonzero(analysis.device(0).attribution.category == Category.KV_CACHE)
    # 24 tokens, 3 layers, keys and values: 23 times each of 6 tensors is replaced by one that is a token longer.
    assert found.evidence["n_copies"] == len(rows) - 6 == 138
    assert found.evidence["moved_bytes"] == sum(sorted(table.requested_bytes[rows].tolist())[:138])
    assert found.evidence["most_held_bytes"] == int(analysis.device(0).category_usage[Category.KV_CACHE].max())


def test_a_kv_cache_of_fixed_size_does_not_grow() -> None:
    builder = TraceBuilder()
    builder.add_event(Action.SEGMENT_ALLOC, address=1 << 40, size_bytes=20 * MiB)
    for i in range(9):
        event = builder.add_event(Action.ALLOC, address=(1 << 40) + 2 * i * MiB, size_bytes=2 * MiB)
        builder.set_owner(event, Category.KV_CACHE, f"layer {i}")
    trace = builder.build(TraceMetadata(source="synthetic", block_layout_recorded=False))
    assert "kv-growth" not in kinds(Analysis(trace).opinions(0).findings)


def held_late(n_steps: int) -> Analysis:
    """Two steps of evaluation keep 4 MiB each; the steps after make none."""
    builder = TraceBuilder()
    address = 1 << 40
    builder.add_event(Action.SEGMENT_ALLOC, address=address, size_bytes=40 * MiB)
    for step in range(n_steps):
        if step < 2:
            builder.add_event(Action.ALLOC, address=address + 4 * step * MiB, size_bytes=4 * MiB)
        for action in (Action.ALLOC, Action.FREE_REQUESTED, Action.FREE_COMPLETED):
            builder.add_event(action, address=address + 8 * MiB, size_bytes=9 * MiB)
        builder.add_mark(MarkKind.STEP, str(step))
    return Analysis(builder.build(TraceMetadata(source="synthetic", block_layout_recorded=False)))


def test_memory_held_after_the_last_step_that_made_such_is_found() -> None:
    (found,) = held_late(8).opinions(0).findings.of_kind("held-late")
    assert found.bytes == 8 * MiB
    assert found.evidence["n_steps_since"] == 6
    assert found.evidence["last_step"] == "1"
    assert found.severity is Severity.INFO
    assert not held_late(4).opinions(0).findings.of_kind("held-late")


def test_findings_come_worst_first() -> None:
    def finding(severity: Severity, size: int | None) -> Finding:
        return Finding("k", severity, 0, "t", "x", size)

    ordered = in_order(
        [
            finding(Severity.INFO, 9),
            finding(Severity.SEVERE, 1),
            finding(Severity.SEVERE, 5),
            finding(Severity.INFO, None),
        ]
    )
    assert [(f.severity.label, f.bytes) for f in ordered] == [("severe", 5), ("severe", 1), ("info", 9), ("info", None)]


def test_what_cannot_be_looked_for_is_said() -> None:
    builder = TraceBuilder()
    builder.add_event(Action.ALLOC, address=1 << 40, size_bytes=MiB)
    trace = builder.build(TraceMetadata(source="synthetic", has_segment_events=False))
    notes = " ".join(Analysis(trace).opinions(0).findings.notes)
    assert "segments were not recorded" in notes
    assert "steps not known" in notes


def test_a_state_without_events_has_a_note_and_no_findings() -> None:
    builder = TraceBuilder()
    segment = builder.add_segment(address=1 << 40, size_bytes=2 * MiB, is_large=False)
    builder.add_block(segment, address=1 << 40, size_bytes=2 * MiB, requested_bytes=MiB, state=0)
    findings = Analysis(builder.build(TraceMetadata(source="synthetic"))).opinions(0).findings
    assert not findings.findings
    assert "no events" in findings.notes[0]


def test_the_same_trace_gives_the_same_findings() -> None:
    trace = fragmented().trace()
    first, second = Analysis(trace).opinions(0).findings, Analysis(trace).opinions(0).findings
    assert repr(first) == repr(second)


def test_a_recorder_out_of_memory_is_reported_like_any_other() -> None:
    recorder = Recorder(total=64 * MiB, knows_total=True)
    recorder.allocator.malloc(40 * MiB)
    with pytest.raises(SimulatedOutOfMemoryError):
        recorder.allocator.malloc(40 * MiB)
    assert analysed(recorder).opinions(0).findings.device == 0
