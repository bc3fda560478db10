"""What is looked for, what cannot be, and that the same trace always gives the same findings."""

from __future__ import annotations

import pytest

from memscope.analysis import Analysis
from memscope.findings.finding import Findings
from memscope.replay.caching.allocator import SimulatedOutOfMemoryError
from memscope.trace.builder import TraceBuilder
from memscope.trace.categories import Category
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import Action
from tests.findings.traces import analysed, fragmented, kinds
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


def start_up(category: Category, *, uses: bool) -> Findings:
    """Twelve layers of one size made one after the other, each with a stack; used or not."""
    builder = TraceBuilder()
    stacks = builder.stacks
    made = stacks.stack([stacks.frame("make_layer", "/home/user/serve.py", 7)])
    used = stacks.stack([stacks.frame("work", "/home/user/serve.py", 9)])
    address = 1 << 40
    for layer in range(40):
        kept = builder.add_event(Action.ALLOC, address=address, size_bytes=16 * MiB, stack_id=made)
        builder.set_owner(kept, category, f"layer {layer}")
        temporary = address + 32 * MiB
        born = builder.add_event(Action.ALLOC, address=temporary, size_bytes=8 * MiB, stack_id=used)
        if uses:
            builder.set_owner(born, Category.ACTIVATIONS, "hidden states")
        builder.add_event(Action.FREE_COMPLETED, address=temporary, size_bytes=8 * MiB, stack_id=used)
        address += 64 * MiB
    metadata = TraceMetadata(source="synthetic", has_segment_events=False)
    return Analysis(builder.build(metadata)).opinions(0).findings


@pytest.mark.parametrize("category", [Category.WEIGHTS, Category.KV_CACHE])
def test_layers_made_one_by_one_at_the_start_are_no_leak(category: Category) -> None:
    found = start_up(category, uses=False)
    assert not {"leak", "kv-kept"} & set(kinds(found))
    assert any("it may be the start, layer by layer" in note for note in found.notes)


def test_what_a_program_in_use_keeps_after_each_step_is_a_leak() -> None:
    assert "leak" in kinds(start_up(Category.UNKNOWN, uses=True))


def test_memory_of_no_category_that_comes_and_goes_is_use_where_what_stays_is_not_known() -> None:
    assert "leak" in kinds(start_up(Category.UNKNOWN, uses=False))
