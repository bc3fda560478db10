"""Memory that ran out for one planted reason: the verdict is that one, and what it proposes holds when asked again."""

from __future__ import annotations

import numpy as np
import pytest

from memscope.analysis import Analysis
from memscope.oom.verdict import HEADLINE_LENGTH, oom_headline
from memscope.trace.categories import Category
from memscope.trace.schema import Action
from memscope.units import MiB
from tests.oom.planted import PLANTS, Program, plant


def verdicts_of(seeds) -> list[tuple[str, int, str]]:
    found = []
    for name in PLANTS:
        for seed in seeds:
            program = plant(name, seed)
            analysis = Analysis(program.trace())
            assert not analysis.contradictions
            assert len(analysis.device(0).oom_events) == (name != "no-oom")
            # A single refusal with room may have other reasons than a cap that nobody recorded.
            is_untold = name == "fraction-cap" and not program.knows_fraction
            found.append(("cannot-tell" if is_untold else name, seed, analysis.oom().verdict.value))
    return found


def check(found: list[tuple[str, int, str]]) -> None:
    wrong = [case for case in found if case[2] not in (case[0], "cannot-tell")]
    assert not wrong
    assert sum(said == "cannot-tell" for name, _, said in found if name != "cannot-tell") <= 0.05 * len(found)


def test_two_hundred_planted_failures_are_told_apart() -> None:
    found = verdicts_of(range(25))
    assert len(found) == 200
    check(found)


def shrinking_keys(program: Program, analysis: Analysis) -> set[int]:
    """What scales with a batch, by the program's own numbers of its requests."""
    category = analysis.device(0).attribution.category
    events = analysis.device(0).allocations.alloc_event
    scales = np.isin(category, (Category.ACTIVATIONS, Category.TEMPORARIES, Category.INPUTS, Category.KV_CACHE))
    return {program.key_of_event[event] for event in events[scales].tolist()}


def changed(program: Program, analysis: Analysis, change) -> bool:
    """Whether a counterfactual lets the program through when it is run again, call by call."""
    if change.kind == "setting":
        return program.survives(conf=change.conf)
    if change.kind in ("outside", "memory"):
        return program.survives(more_bytes=change.changed_bytes)
    if change.kind == "frees-complete":
        return program.survives(completes=True)
    if change.kind == "no-pools":
        return program.survives(one_pool=True)
    if change.kind == "cap":
        wanted = program.allocator.stats.reserved_bytes + change.changed_bytes
        return program.survives(fraction=min((wanted + MiB) / program.total, 1.0))
    if change.kind == "batch":
        shrinks = shrinking_keys(program, analysis)
        return program.survives(scale=lambda key: 1 - change.reduction_frac if key in shrinks else 1)
    if change.kind == "blocks":
        return program.survives(freed_events=[block.alloc_event for block in change.blocks])
    raise AssertionError(change.kind)


@pytest.mark.parametrize("name", [name for name in PLANTS if name != "no-oom"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_is_proposed_lets_the_program_through_when_it_is_run_again(name: str, seed: int) -> None:
    program = plant(name, seed)
    assert not program.survives()
    analysis = Analysis(program.trace())
    verdict = analysis.oom()
    if name == "fraction-cap" and not program.knows_fraction:
        assert verdict.remedies.not_found == ("nothing was searched: what refused the request is not known",)
        assert not verdict.remedies.found
        return
    assert verdict.counterfactual is not None
    assert verdict.remedies.replay_error_bytes == 0
    for change in verdict.remedies.found:
        if change.kind == "blocks":
            assert change.changed_bytes >= sum(block.block_bytes for block in change.blocks)
            if change.n_blocks > len(change.blocks):
                continue
        assert changed(program, analysis, change), change


@pytest.mark.parametrize("name", list(PLANTS))
def test_the_headline_is_one_short_line_with_the_request_in_it(name: str) -> None:
    verdict = Analysis(plant(name, 0).trace()).oom()
    line = oom_headline(verdict)
    assert len(line) <= HEADLINE_LENGTH
    assert "\n" not in line
    assert name == "no-oom" or "MiB asked" in line or "GiB asked" in line


@pytest.mark.parametrize("name", [name for name in PLANTS if name != "no-oom"])
def test_the_numbers_are_those_of_the_state_at_the_event(name: str) -> None:
    program = plant(name, 3)
    trace = program.trace()
    analysis = Analysis(trace)
    verdict = analysis.oom()
    stats = program.allocator.stats  # the request was the last thing that the program did
    assert trace.action[verdict.event] == Action.OOM
    failure, free = verdict.failure, verdict.failure.free
    assert (free.reserved_bytes, failure.allocated_bytes, failure.active_bytes) == (
        stats.reserved_bytes,
        stats.allocated_bytes,
        stats.active_bytes,
    )
    assert free.free_bytes == stats.reserved_bytes - stats.active_bytes == sum(g.free_bytes for g in free.groups)
    assert verdict.failure.limit.device_free_bytes == program.total - program.outside_bytes - stats.reserved_bytes
    for group in verdict.failure.free.groups:
        assert group.free_bytes == group.releasable_bytes + group.pinned_bytes
