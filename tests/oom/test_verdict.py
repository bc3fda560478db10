"""The one line that a verdict is told in."""

from __future__ import annotations

from memscope.analysis import Analysis
from memscope.oom.verdict import HEADLINE_LENGTH, Cause, OomClass, OomVerdict, oom_headline
from memscope.units import GiB, MiB
from tests.oom.planted import Program, full, holes_between_pins


def test_a_headline_has_the_request_and_what_its_cause_rests_on() -> None:
    capped = holes_between_pins(Program(1 * GiB, fraction=0.25))
    # The cap of 256 MiB is all reserved: 768 of the 1024 MiB are left on the device.
    assert oom_headline(Analysis(capped.trace()).oom()) == (
        "fraction cap: 60.0 MiB asked, refused by a cap on PyTorch's share with 768.0 MiB left on the device"
    )
    program = full()
    program.free(3, waits=True)
    program.fail(60 * MiB)
    assert oom_headline(Analysis(program.trace()).oom()) == (
        "stream-delayed frees: 60.0 MiB asked, 100.0 MiB freed but waiting for other streams"
    )


def test_a_verdict_without_a_failure_has_no_event_and_says_why() -> None:
    served = OomVerdict(0, Cause(OomClass.NO_OOM, "no request failed in this recording"))
    assert (served.event, served.counterfactual, oom_headline(served)) == (None, None, "no request failed")
    unknown = OomVerdict(0, Cause(OomClass.CANNOT_TELL, "no events were recorded"), is_certain=False)
    assert oom_headline(unknown) == "cannot tell: no events were recorded"


def test_a_long_headline_is_cut_at_its_end() -> None:
    line = oom_headline(OomVerdict(0, Cause(OomClass.CANNOT_TELL, "x" * 200)))
    assert line == f"cannot tell: {'x' * (HEADLINE_LENGTH - 14)}…"
    assert len(line) == HEADLINE_LENGTH
