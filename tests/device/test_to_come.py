"""What a program whose request failed was about to ask for."""

from __future__ import annotations

from memscope.advise.tune import tune
from memscope.analysis import Analysis
from memscope.device.to_come import category_of_request, optimizer_state_to_come, state_to_come
from memscope.replay.compare import compare
from memscope.trace.categories import Category
from memscope.units import MiB
from memscope.words.replay import tuning_words, verdict_words
from tests.oom.planted import Program, holes_between_pins
from tests.oom.test_causes import first_step


def test_counters_of_steps_do_not_tell_how_much_state_a_weight_has() -> None:
    program = first_step(1000 * MiB, 0)
    program.malloc(4, category=Category.GRADIENTS)
    for _ in range(30):
        program.malloc(4, category=Category.OPTIMIZER_STATE)
    program.malloc(100 * MiB, category=Category.OPTIMIZER_STATE)
    assert program.malloc(400 * MiB) is None
    failed = program.builder.n_events - 1
    program.builder.set_owner(failed, Category.OPTIMIZER_STATE, "exp_avg")
    device = Analysis(program.trace()).device(0)
    # One tensor for one of three gradients of that size, and none for the one of 20 MiB.
    assert optimizer_state_to_come(device, failed) == state_to_come(device) == 220 * MiB
    assert category_of_request(device, failed) is Category.OPTIMIZER_STATE


def test_a_request_of_something_else_has_no_state_to_come() -> None:
    program = first_step(1000 * MiB, 5)
    assert program.malloc(100 * MiB) is None
    assert state_to_come(Analysis(program.trace()).device(0)) == 0
    assert state_to_come(Analysis(first_step(4000 * MiB, 5).trace()).device(0)) == 0


def test_no_setting_is_recommended_where_more_is_to_come_than_is_free() -> None:
    program: Program = first_step((640 + 140 + 256) * MiB, 3)
    holes_between_pins(program)
    program.builder.set_owner(program.builder.n_events - 1, Category.OPTIMIZER_STATE, "exp_avg")
    device = Analysis(program.trace()).device(0)
    to_come = state_to_come(device)
    unaware, aware = tune(device.lifetimes), tune(device.lifetimes, to_come_bytes=to_come)
    assert unaware.recommended_conf is not None
    assert aware.recommended_conf is None
    assert "the optimizer had at least 500.0 MiB of its state still to make" in tuning_words(aware)
    compared = compare(device.lifetimes, confs=["", unaware.recommended_conf], to_come_bytes=to_come).verdict
    assert compared.kind == "full"
    assert "still to make" in verdict_words(compared)
