"""A verdict as a whole: which failure it is about, what it cannot tell, and what weakens it."""

from __future__ import annotations

import pytest

from memscope.analysis import Analysis
from memscope.errors import UsageError
from memscope.oom.verdict import OomClass
from memscope.trace.categories import Category
from memscope.trace.schema import Action
from memscope.units import GiB, MiB
from tests.oom.planted import Program, full, holes_between_pins


def test_a_recording_that_began_late_keeps_its_cause_and_says_what_is_older() -> None:
    verdict = Analysis(holes_between_pins(Program(256 * MiB), late=True).trace()).oom()
    assert verdict.verdict is OomClass.EXTERNAL_FRAGMENTATION
    assert any("older than the recording" in text for text in verdict.trust)
    blocks = next(change for change in verdict.remedies.found if change.kind == "blocks")
    assert [block.alloc_event for block in blocks.blocks] == [None]


def test_lost_events_are_named_and_no_failure_among_the_kept_ones_is_not_proof() -> None:
    verdict = Analysis(full().trace(n_events_lost=7)).oom()
    assert verdict.verdict is OomClass.NO_OOM
    assert verdict.trust == ("7 events were lost: a request that failed among them is not seen",)
    assert not verdict.is_certain


def test_where_loss_cannot_be_told_no_failure_is_no_proof() -> None:
    program = full()
    program.forget()
    program.free(3)
    verdict = Analysis(program.trace()).oom()
    assert verdict.verdict is OomClass.NO_OOM
    assert not verdict.is_certain
    assert "whether events are missing cannot be told" in verdict.trust[0]


def test_a_snapshot_alone_does_not_tell_whether_a_request_failed() -> None:
    program = full()
    program.forget()
    program.builder.add_event(Action.SNAPSHOT, address=0, size_bytes=0)
    verdict = Analysis(program.trace()).oom()
    assert verdict.verdict is OomClass.CANNOT_TELL
    assert "no allocation was recorded" in verdict.reason


def test_rejections_that_leave_no_event_are_named() -> None:
    trace = full().trace(alloc_conf="throw_on_cudamalloc_oom:True")
    verdict = Analysis(trace).oom()
    assert verdict.verdict is OomClass.NO_OOM
    assert "throw_on_cudamalloc_oom" in verdict.trust[0]


@pytest.mark.parametrize("is_split", [True, False])
def test_a_failure_that_pytorch_would_not_have_had_is_not_explained(is_split: bool) -> None:
    program = full()
    program.free(3)
    if is_split:
        program.malloc(20 * MiB)
    program.fail(70 * MiB)
    program.free(4)
    verdict = Analysis(program.trace()).oom()
    assert verdict.verdict is OomClass.CANNOT_TELL
    assert ("would have served it" if is_split else "could still be given back") in verdict.reason


def test_without_segments_nothing_is_told() -> None:
    program = full()
    program.malloc(50 * MiB)
    verdict = Analysis(program.trace(has_segment_events=False)).oom()
    assert verdict.verdict is OomClass.CANNOT_TELL
    assert verdict.failure.free is None
    assert verdict.failure.owners


def test_each_of_several_failures_has_its_own_verdict() -> None:
    program = full()
    program.malloc(50 * MiB)
    program.free(2)
    program.malloc(200 * MiB)
    analysis = Analysis(program.trace())
    first, second = analysis.device(0).oom_events.tolist()
    assert analysis.oom().event == second  # it ended the recording
    assert analysis.oom(event=first).event == first
    assert analysis.oom(event=second).failure.request.rounded_bytes == 200 * MiB
    assert analysis.oom(event=second).remedies.replay_error_bytes == 0
    assert analysis.oom().events == (first, second)
    with pytest.raises(UsageError, match=f"its errors are at {first}, {second}"):
        analysis.oom(event=1)
    with pytest.raises(UsageError, match="has none in this trace"):
        Analysis(full().trace()).oom(event=1)


def test_the_evidence_names_the_request_its_places_and_what_packing_would_need() -> None:
    verdict = Analysis(holes_between_pins(Program(256 * MiB)).trace()).oom()
    assert verdict.evidence[:4] == (
        "60.0 MiB (rounded) were asked for on the default stream from the default pool: a segment of 60.0 MiB",
        "when it failed, the largest free block that it may use was 50.0 MiB; what the driver had left: 0 B",
        "210.0 MiB were free inside reserved memory, 0 B of it in pieces that could still go back to the driver",
        "packed perfectly, all that was in use and the request need 106.0 MiB; PyTorch could have 256.0 MiB",
    )


def test_a_second_failure_says_what_the_first_ones_exception_still_holds() -> None:
    program = Program(GiB)
    program.malloc(300 * MiB, category=Category.WEIGHTS)
    held = program.malloc(400 * MiB, category=Category.ACTIVATIONS)
    assert program.malloc(400 * MiB) is None
    program.malloc(200 * MiB, category=Category.ACTIVATIONS)
    assert program.malloc(300 * MiB) is None
    analysis = Analysis(program.trace())
    first, second = analysis.device(0).oom_events.tolist()
    assert not any("still are" in text for text in analysis.oom(event=first).evidence)
    (said,) = (text for text in analysis.oom(event=second).evidence if "still are" in text)
    assert said.startswith(
        f"400.0 MiB of activations, temporaries and inputs (1 block) were live when the request at event {first} failed"
    )
    assert held is not None


def test_what_was_let_go_between_two_failures_is_not_said_to_be_held() -> None:
    program = Program(GiB)
    freed = program.malloc(400 * MiB, category=Category.ACTIVATIONS)
    assert program.malloc(800 * MiB) is None
    program.free(freed)
    assert program.malloc(2 * GiB) is None
    analysis = Analysis(program.trace())
    second = int(analysis.device(0).oom_events[1])
    assert not any("still are" in text for text in analysis.oom(event=second).evidence)
