"""Where the steps of a program end: from its marks, its optimizer, its backward passes, or from what repeats."""

from __future__ import annotations

import numpy as np

from memscope.attribution.phases.phases import Phase, PhaseRuns, find_phases
from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.steps import Steps, marked_steps
from memscope.trace.schema import NONE_ID, Action
from memscope.trace.tables import Int32Array, Int64Array, rank_rows

OPTIMIZER_STEPS = "the optimizer's calls"
BACKWARD_STEPS = "the backward passes"
REPEATED_STEPS = "allocations that repeat"
PASSES = "the forward passes and generations"
_LEAST_SHARE = 0.9
_TIE_SHARE = 0.005
_N_CANDIDATES = 32
_N_LEAST_ALLOCS = 8
_N_MOST_TOLD_TOGETHER = 4
"""Steps that differ in sizes and repeat as a group."""
_START_SHARE = 0.25
"""Of the allocations, which may be the start and need not repeat."""


def find_steps(lifetimes: DeviceLifetimes, runs: PhaseRuns | None = None) -> Steps | None:
    """Find the steps of a device; None where nothing tells them.

    Marks are the program's word. Without any, a step ends with the optimizer's, or where optimizer steps are not seen
    (a fused optimizer allocates nothing after its first) with the backward pass; and in a program of neither, with the
    shortest sequence of allocations, by size and stack, that nearly all of the recording repeats.
    """
    marked = marked_steps(lifetimes)
    if marked is not None:
        return marked
    runs = runs or find_phases(lifetimes)
    optimizer, backward = _episode_ends(runs, Phase.OPTIMIZER), _episode_ends(runs, Phase.BACKWARD)
    if len(optimizer) and not len(optimizer) == 1 < len(backward):
        return _steps_between(lifetimes.first_event, optimizer, lifetimes, OPTIMIZER_STEPS)
    if len(backward):
        return _steps_between(lifetimes.first_event, backward, lifetimes, BACKWARD_STEPS)
    starts = _repeated(lifetimes, runs)
    return None if starts is None else _steps_between(int(starts[0]), starts[1:], lifetimes, REPEATED_STEPS)


def find_passes(lifetimes: DeviceLifetimes, runs: PhaseRuns | None = None) -> Steps | None:
    """Find the passes of a device, which a program has more of than steps: None where it has none.

    Those are backward passes; and where nothing is trained, calls of modules from outside of all others, and
    generations. A loop over layers that calls each by itself has as many of these as layers.
    """
    runs = runs or find_phases(lifetimes)
    backward = _episode_ends(runs, Phase.BACKWARD)
    if len(backward):
        return _steps_between(lifetimes.first_event, backward, lifetimes, BACKWARD_STEPS)
    if (runs.phase == Phase.OPTIMIZER).any():
        return None
    ends = runs.end[np.isin(runs.phase, (Phase.FORWARD, Phase.GENERATE))]
    return _steps_between(lifetimes.first_event, ends, lifetimes, PASSES) if len(ends) else None


def _steps_between(first: int, ends: Int64Array, lifetimes: DeviceLifetimes, source: str) -> Steps:
    if lifetimes.fatal_oom_event is not None and len(ends) > 1 and ends[-1] > lifetimes.fatal_oom_event:
        ends = ends[:-1]  # memory ran out in it: it is no whole step
    ends = np.minimum(ends, lifetimes.end_event)
    return Steps(np.concatenate([[first], ends[:-1]]), ends, tuple(map(str, range(len(ends)))), source)


def _episode_ends(runs: PhaseRuns, phase: Phase) -> Int64Array:
    """Where each optimizer step or backward pass ends, the pauses within it left out: int64.

    Gradients that are dropped between a forward and its backward pass are no step of the optimizer.
    """
    ends: list[int] = []
    previous = Phase.OUTSIDE
    for number, end in zip(runs.phase.tolist(), runs.end.tolist(), strict=True):
        if number == Phase.OUTSIDE:
            continue
        if number == phase and not (phase == Phase.OPTIMIZER and previous == Phase.FORWARD):
            if previous == phase and ends:
                ends[-1] = end
            elif phase == Phase.BACKWARD or previous == Phase.BACKWARD:
                ends.append(end)
        if not (number == Phase.OPTIMIZER and previous == Phase.FORWARD):
            previous = Phase(number)
    return np.array(ends, np.int64)


def _repeated(lifetimes: DeviceLifetimes, runs: PhaseRuns) -> Int64Array | None:
    """Where what repeats begins each time, None if nothing does or if it may be the layers of one pass: int64."""
    trace = lifetimes.trace
    within = slice(lifetimes.first_event, lifetimes.end_event)
    allocs = np.flatnonzero(trace.action[within] == Action.ALLOC) + lifetimes.first_event
    if len(allocs) < _N_LEAST_ALLOCS:
        return None
    token = rank_rows(trace.size_bytes[allocs], trace.stack_id[allocs])
    period = _period(token)
    if period is None:
        return None
    begin = _first_whole(token, period)
    period = _undoubled(trace.stack_id[allocs[begin:]], period)
    starts = allocs[begin::period]
    return starts if _is_loop_of_passes(runs, starts) else None


def _period(token: Int32Array) -> int | None:
    """The shortest distance, in allocations, at which nearly all of a sequence repeats; None if there is none.

    Tried are the distances between neighbours of the same kind, of the rarest kinds first: those come once a step.
    """
    token = token[int(_START_SHARE * len(token)) :]
    n = len(token)
    counts = np.bincount(token)
    order = np.argsort(token, kind="stable").astype(np.int32)
    in_order = token[order]
    has_next = in_order[1:] == in_order[:-1]
    gaps, kinds = (order[1:] - order[:-1])[has_next], in_order[:-1][has_next]
    del order, in_order
    gaps = gaps[np.argsort(counts[kinds], kind="stable")]
    _, first = np.unique(gaps, return_index=True)
    candidates = gaps[np.sort(first)][:_N_CANDIDATES]
    candidates = candidates[candidates <= n // 2]
    shares = {int(p): float((token[p:] == token[:-p]).mean()) for p in candidates}
    best = max(shares.values(), default=0.0)
    if best < _LEAST_SHARE:
        return None
    return min(period for period, share in shares.items() if share >= best - _TIE_SHARE)


def _undoubled(stack_id: Int32Array, period: int) -> int:
    """The shortest part of a period after which all stacks come again: sizes may differ from one step to the next."""
    if (stack_id == NONE_ID).any():
        return period

    def share(distance: int) -> float:
        return float((stack_id[distance:] == stack_id[:-distance]).mean())

    whole = share(period)
    parts = (period // n for n in range(_N_MOST_TOLD_TOGETHER, 1, -1) if period % n == 0)
    return next((part for part in parts if len(np.unique(stack_id[:part])) > 1 and share(part) >= whole), period)


def _first_whole(token: Int32Array, period: int) -> int:
    """Where the sequence begins to repeat."""
    repeats = token[period:] == token[:-period]
    wrong = np.flatnonzero(~repeats[: len(repeats) // 2])
    return int(wrong[-1]) + 1 if len(wrong) else 0


def _is_loop_of_passes(runs: PhaseRuns, starts: Int64Array) -> bool:
    """Whether a step begins outside of the run that its last one was in: the layers of one pass repeat, too.

    Without any phase (no stacks) nothing can be said against it.
    """
    if len(starts) <= 1:
        return False
    if not (runs.phase > Phase.OUTSIDE).any():
        return True
    run = runs.run_at(starts)
    return bool((np.diff(run) > 0).mean() > _LEAST_SHARE)
