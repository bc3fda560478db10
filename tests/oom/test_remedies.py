"""What would have let a request through: the cheapest of it, and that it holds in a replay."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from memscope.analysis import Analysis, load
from memscope.oom.judge import judge_oom
from memscope.oom.verdict import Counterfactual, OomClass, Remedies, oom_headline
from memscope.trace.builder import TraceBuilder
from memscope.trace.categories import Category
from memscope.trace.schema import Action, MarkKind
from memscope.units import GiB, MiB
from tests.oom.planted import Program, full, holes_between_pins

TRACES = Path(__file__).resolve().parents[2] / "traces"


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


def test_less_memory_from_the_start_may_do_than_was_lacking_at_the_end() -> None:
    program = Program(800 * MiB)
    for size in (512, 560):  # the second needs a reclaim, after which what follows lies in it
        program.free(program.malloc(size * MiB))
    program.malloc(320 * MiB)
    assert program.malloc(560 * MiB) is None
    (memory,) = (change for change in Analysis(program.trace()).oom().remedies.found if change.kind == "memory")
    # 240 MiB are left for 560; but with room for both segments the 320 MiB lie in the first.
    assert memory.changed_bytes == (512 + 560 - 800) * MiB < (560 - 240) * MiB
    assert program.survives(more_bytes=memory.changed_bytes)
    assert not program.survives(more_bytes=memory.changed_bytes - 2 * MiB)


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


def reach_of(*later_bytes: int) -> tuple[int, Counterfactual]:
    """How far a setting comes of a program that fails, and asks for so much afterwards; and the failed request."""
    program = holes_between_pins(Program(256 * MiB))
    failed = program.builder.n_events - 1
    for size in later_bytes:
        key = program.malloc(size)
        if key is not None:
            program.free(key)
    remedies = Analysis(program.trace()).oom(event=failed).remedies
    (change,) = (change for change in remedies.found if change.kind == "setting")
    assert change.conf == "max_split_size_mb:64"
    return failed, change


def test_a_setting_is_followed_to_the_recordings_end() -> None:
    _, change = reach_of()
    assert (change.n_events_after, change.fails_again_event) == (0, None)
    assert change.spare_bytes == 150 * MiB
    what_follows = "nothing follows in the recording: what would have been asked for next is not known"
    assert change.note == f"leaves 150.0 MiB to spare; {what_follows}"
    # The program survives it, and goes on with what is served as well.
    _, change = reach_of(MiB)
    assert change.fails_again_event is None
    served = f"with it all requests of the {change.n_events_after} events that follow are served"
    assert change.note == f"leaves 150.0 MiB to spare; {served}"
    # Then it asks for more than the device has: no setting serves that.
    failed, change = reach_of(MiB, 300 * MiB)
    assert change.n_events_after is not None
    assert change.fails_again_event == failed + change.n_events_after
    assert change.note == (
        f"leaves 150.0 MiB to spare; it does not serve the request of event {change.fails_again_event}, "
        f"{change.n_events_after} later, "
        "which failed in the recording too"
    )


def test_the_failed_request_shrinks_with_the_batch_where_its_stack_says_so() -> None:
    analysis = load(TRACES / "tiny-out-of-memory.memscope")
    verdict = analysis.oom()
    device = analysis.device(0)
    (change,) = (change for change in verdict.remedies.found if change.kind == "batch")
    assert "so does the failed request (activations)" in change.note
    assert change.reduction_frac is not None
    # 2 MiB of 514 were lacking, and all but the weights scale.
    live = device.at(verdict.event).ledger
    scaling = sum(live[name] for name in ("activations", "temporaries", "inputs", "kv_cache"))
    assert change.reduction_frac * (scaling + 64 * MiB) >= 2 * MiB
    assert (change.reduction_frac - 0.01) * (scaling + 64 * MiB) < 4 * MiB


def test_a_request_without_a_stack_is_taken_not_to_shrink() -> None:
    program = Program(256 * MiB)
    program.malloc(100 * MiB, category=Category.ACTIVATIONS)
    program.malloc(100 * MiB, category=Category.WEIGHTS)
    assert program.malloc(100 * MiB) is None
    verdict = Analysis(program.trace()).oom()
    (change,) = (change for change in verdict.remedies.found if change.kind == "batch")
    assert change.note.endswith("the failed request is taken not to: what it was for is not known")
    assert change.reduction_frac == 0.44


def test_memory_that_is_held_from_earlier_steps_is_said_beside_a_smaller_batch() -> None:
    program = Program(GiB)
    for step in range(4):
        program.malloc(200 * MiB, category=Category.ACTIVATIONS)
        program.builder.add_mark(MarkKind.STEP, f"step {step}")
    assert program.malloc(300 * MiB) is None
    verdict = Analysis(program.trace()).oom()
    (change,) = (change for change in verdict.remedies.found if change.kind == "batch")
    assert "800.0 MiB of this memory is held from earlier steps" in change.note


def test_what_a_program_needs_is_not_a_block_to_free() -> None:
    program = Program(200 * MiB)
    program.malloc(50 * MiB, category=Category.WORKSPACE)
    program.malloc(60 * MiB, category=Category.WEIGHTS)
    program.malloc(70 * MiB, category=Category.ACTIVATIONS)
    assert program.malloc(55 * MiB) is None
    (change,) = (change for change in Analysis(program.trace()).oom().remedies.found if change.kind == "blocks")
    # 20 MiB are left: freeing the 50 or the 60 would do as well, and is less; but the program needs them.
    assert [block.block_bytes for block in change.blocks] == [70 * MiB]


def test_freeing_dozens_of_blocks_is_not_offered() -> None:
    program = Program(1000 * MiB)
    for _ in range(50):
        program.malloc(20 * MiB)
    assert program.malloc(700 * MiB) is None
    remedies = Analysis(program.trace()).oom().remedies
    assert "blocks" not in {change.kind for change in remedies.found}
    assert "no small set of live blocks was found whose freeing serves it in a replay" in remedies.not_found


def test_what_a_replay_cannot_check_is_said_once() -> None:
    program = Program(256 * MiB)
    program.malloc(100 * MiB)
    program.malloc(100 * MiB)
    program.fail(50 * MiB)  # refused although 56 MiB are left
    verdict = Analysis(program.trace()).oom()
    assert any(sentence.startswith("56.0 MiB is as good as nothing") for sentence in verdict.evidence)
    remedies = verdict.remedies
    assert not any("not checked" in change.note for change in remedies.found)
    assert remedies.not_found == (
        "settings and batches were not checked: a replay of the recording as it was serves this request",
    )


class SecondDevice(TraceBuilder):
    """A builder of what happens on device 1."""

    def add_event(self, action: Action | int, **columns: Any) -> int:
        return super().add_event(action, **columns | {"device": 1})

    def add_sample(self, **columns: Any) -> None:
        super().add_sample(**columns | {"device": 1})

    def add_segment(self, **columns: Any) -> int:
        return super().add_segment(**columns | {"device": 1})


def setting_after_churn(builder: TraceBuilder, device: int, n_events_before: int) -> tuple[str | None, int | None]:
    """The setting that is offered to a program that goes on after its failure, and how far it comes from there."""
    for _ in range(n_events_before // 2):
        TraceBuilder.add_event(builder, Action.ALLOC, address=1 << 20, size_bytes=512)
        TraceBuilder.add_event(builder, Action.FREE_COMPLETED, address=1 << 20, size_bytes=512)
    program = Program(256 * MiB, builder=builder)
    holes_between_pins(program)
    freed = {call[1] for call in program.ops if call[0] == "free"}
    rng, live = random.Random(0), [key for key in program.addresses if key not in freed]
    for _ in range(30):
        if rng.random() < 0.6 or not live:
            key = program.malloc(rng.choice([3, 8, 14, 21, 27, 33, 48]) * MiB)
            live += [] if key is None else [key]
        else:
            program.free(live.pop(rng.randrange(len(live))))
    trace = program.trace(device_total_bytes={device: 256 * MiB})
    verdict = Analysis(trace).oom(device)
    (change,) = (change for change in verdict.remedies.found if change.kind == "setting")
    assert verdict.event is not None
    again = change.fails_again_event
    return change.conf, None if again is None else again - verdict.event


def test_a_second_device_is_offered_what_a_first_one_would_be() -> None:
    alone = setting_after_churn(TraceBuilder(), 0, 0)
    assert setting_after_churn(SecondDevice(), 1, 200) == alone
