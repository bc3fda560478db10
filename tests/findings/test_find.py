"""What is looked for, what cannot be, and that the same trace always gives the same findings."""

from __future__ import annotations

import pytest

from memscope.analysis import Analysis
from memscope.replay.caching.allocator import SimulatedOutOfMemoryError
from memscope.trace.builder import TraceBuilder
from memscope.trace.categories import Category
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import Action
from tests.findings.traces import analysed, fragmented, kinds, layers_that_stay
from tests.replay.recordings import Recorder

MiB = 1 << 20


def test_layers_loaded_one_by_one_without_stacks_are_no_leak() -> None:
    recorder = Recorder()
    for _ in range(32):
        for size in (16, 16, 4, 4, 44, 44, 44):
            recorder.allocator.free(recorder.allocator.malloc(2 * size * MiB))
            recorder.allocator.malloc(size * MiB)
    findings = analysed(recorder).opinions(0).findings
    assert "leak" not in kinds(findings)
    assert any("leaks were not looked for" in note for note in findings.notes)


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


@pytest.mark.parametrize("category", [Category.WEIGHTS, Category.KV_CACHE])
def test_layers_made_one_by_one_at_the_start_are_no_leak(category: Category) -> None:
    found = Analysis(layers_that_stay(category, uses=False)).opinions(0).findings
    assert not {"leak", "kv-kept"} & set(kinds(found))
    assert any("it may be the start, layer by layer" in note for note in found.notes)


def test_what_a_program_in_use_keeps_after_each_step_is_a_leak() -> None:
    assert "leak" in kinds(Analysis(layers_that_stay(Category.UNKNOWN, uses=True)).opinions(0).findings)


def test_much_memory_of_no_category_that_comes_and_goes_is_use_where_what_stays_is_not_known() -> None:
    used = layers_that_stay(Category.UNKNOWN, uses=False, n_temporaries=6)
    assert "leak" in kinds(Analysis(used).opinions(0).findings)


def test_a_conversion_layer_by_layer_is_no_leak() -> None:
    converted = layers_that_stay(Category.UNKNOWN, uses=False, n_temporaries=1)
    assert "leak" not in kinds(Analysis(converted).opinions(0).findings)
