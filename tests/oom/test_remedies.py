"""What would have let a request through: the cheapest of it, and that it holds in a replay."""

from __future__ import annotations

from memscope.analysis import Analysis
from memscope.oom.judge import judge_oom
from memscope.oom.verdict import OomClass, Remedies, oom_headline
from memscope.units import MiB
from tests.oom.planted import Program, full, holes_between_pins


def test_holes_between_pins_are_fragmentation_and_the_cheapest_pin_is_named() -> None:
    program = holes_between_pins(Program(256 * MiB))
    verdict = Analysis(program.trace()).oom()
    # Each segment: 50 MiB free, a pin, and the rest free: 210 MiB free in all, never more than 50 in one piece.
    assert verdict.verdict is OomClass.EXTERNAL_FRAGMENTATION
    assert verdict.failure.free.free_bytes == (4 * 64 - 46) * MiB
    assert verdict.failure.free.largest_bytes == 50 * MiB
    assert (
        oom_headline(verdict) == "external fragmentation: 60.0 MiB asked, 210.0 MiB free in pieces of at most 50.0 MiB"
    )
    blocks = next(change for change in verdict.remedies.found if change.kind == "blocks")
    assert blocks.checked == "exact"
    assert [block.block_bytes for block in blocks.blocks] == [10 * MiB]
    setting = verdict.counterfactual
    assert setting.line == f"PYTORCH_ALLOC_CONF={setting.conf}"
    assert program.survives(conf=setting.conf)


def test_only_what_a_replay_serves_is_offered_and_what_was_not_found_is_said() -> None:
    program = full()
    program.malloc(50 * MiB)
    remedies = Analysis(program.trace()).oom().remedies
    # 1000 MiB are in use on 1024: no setting makes room for 50 more, one block of 100 or 26 MiB of memory do.
    assert [(change.kind, change.checked, change.changed_bytes) for change in remedies.found] == [
        ("blocks", "exact", 100 * MiB),
        ("memory", "exact", 26 * MiB),
    ]
    assert remedies.not_found == (
        "how much less batch would do cannot be told: no live memory is known to scale with it",
    )


def test_a_replay_that_serves_the_request_as_it_was_checks_nothing() -> None:
    program = full()
    program.free(3, waits=True)
    program.fail(60 * MiB)
    remedies = Analysis(program.trace()).oom().remedies
    assert [(change.kind, change.checked) for change in remedies.found] == [
        ("frees-complete", "unchecked"),
        ("blocks", "unchecked"),
    ]
    assert "a replay of the recording as it was serves this request" in remedies.not_found[0]


def test_nothing_is_searched_where_that_is_not_asked_for() -> None:
    device = Analysis(holes_between_pins(Program(256 * MiB)).trace()).device(0)
    assert judge_oom(device, searches=False).remedies == Remedies()
