"""Memory that is held after the last step that made such."""

from __future__ import annotations

from memscope.analysis import Analysis
from memscope.findings.finding import Severity
from memscope.trace.builder import TraceBuilder
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import Action, MarkKind
from tests.findings.traces import of_kind

MiB = 1 << 20


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
    (found,) = of_kind(held_late(8).opinions(0).findings, "held-late")
    assert found.bytes == 8 * MiB
    assert found.evidence["n_steps_since"] == 6
    assert found.evidence["last_step"] == "1"
    assert found.severity is Severity.INFO
    assert not of_kind(held_late(4).opinions(0).findings, "held-late")
