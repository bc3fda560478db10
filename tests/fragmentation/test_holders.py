"""Who holds a pinning block, how old it is, and when it was born."""

from __future__ import annotations

from memscope.analysis import Analysis
from memscope.trace.builder import TraceBuilder
from memscope.trace.categories import Category
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import Action, MarkKind
from memscope.trace.trace import Trace

MiB = 1 << 20
BASE = 1 << 40


def trace(source: str = "synthetic") -> Trace:
    """Of 20 MiB, 2 are used since before the events, and 3 since the first step."""
    builder = TraceBuilder()
    builder.add_mark(MarkKind.PHASE_BEGIN, "forward")
    for i in range(4):
        event = builder.add_event(Action.ALLOC, address=BASE + 2 * MiB, size_bytes=3 * MiB, time_ns=1000 * i)
        if i < 3:
            for action in (Action.FREE_REQUESTED, Action.FREE_COMPLETED):
                builder.add_event(action, address=BASE + 2 * MiB, size_bytes=3 * MiB, time_ns=1000 * i)
            builder.add_mark(MarkKind.STEP, f"s{i}")
    builder.set_owner(event, Category.INPUTS, "batch")
    builder.add_event(Action.SNAPSHOT, address=0, size_bytes=0, time_ns=9000)
    builder.add_mark(MarkKind.STEP, "s3")
    segment = builder.add_segment(address=BASE, size_bytes=20 * MiB, is_large=True)
    for start, end, state in ((0, 2, 0), (2, 5, 0), (5, 20, 2)):
        size = (end - start) * MiB
        requested = 0 if state else size
        builder.add_block(segment, address=BASE + start * MiB, size_bytes=size, requested_bytes=requested, state=state)
    return builder.build(TraceMetadata(source=source, alloc_conf=""))


def test_holders_have_owner_age_and_step() -> None:
    moment = Analysis(trace()).end(0)
    (pin,) = moment.pins()
    batch, old = moment.holders(pin)
    assert (batch.category, batch.owner, batch.step) == (Category.INPUTS, "batch", "s3")
    assert (batch.alloc_event, batch.age_events, batch.age_ns) == (9, 1, 6000)
    assert (old.alloc_event, old.step) == (None, None)
    assert (old.age_events, old.age_ns) == (10, 9000)


def test_the_times_of_a_dry_run_are_no_ages() -> None:
    moment = Analysis(trace("dry-run")).end(0)
    (pin,) = moment.pins()
    assert [holder.age_ns for holder in moment.holders(pin)] == [None, None]
