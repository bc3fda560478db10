"""The techniques with which a request that ended a run would have been served.

Each is applied to what the program had asked for by then, and that is served within the memory that the run had. What
the program would have gone on to need is not known: of a pass, or a step, that was cut off all that it still held is
taken to be let go of after the request, and nothing after the request is tried.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from memscope.device.device import Device
from memscope.device.limits import Limits, recorded_limits
from memscope.errors import UsageError
from memscope.lifetimes.tables import NEVER
from memscope.replay.caching.engine import replay_caching
from memscope.replay.config import CachingAllocatorConfig, recorded_tie_rule
from memscope.replay.result import ReplayResult
from memscope.techniques.fit import ORDER
from memscope.techniques.passes import Pass, cut_forward
from memscope.techniques.program import GAP, Program
from memscope.techniques.registry import technique_named
from memscope.techniques.technique import Change, Cost, Proof
from memscope.trace.categories import Category

MOST = 5
_TRIED = (*(each for each in ORDER if not each[0].startswith("conf:")), ("fsdp2:ranks=8", "ranks"))
"""The cheapest first; of those that are about the same only the first is named. Settings are tried elsewhere."""
_OF_WHAT_IS_NOT_TRAINED = "quantize:"
"""Known only after a whole step: until then nothing has a gradient."""
_OF_TEMPORARIES = ("optimizer:fused", "optimizer:foreach-off")
"""In an optimizer's first step what it makes as state cannot be told from what it drops."""
_PASSING = (Category.ACTIVATIONS, Category.TEMPORARIES, Category.UNKNOWN)


@dataclass(frozen=True, slots=True)
class LetThrough:
    """A technique with which a request would have been served.

    Attributes
    ----------
    technique
        As ``memscope whatif --apply`` has it.
    in_use_bytes
        What would have been allocated with the request.
    saved_bytes
        What that is less than without the technique.
    how
        What to change in the code, a line.
    """

    technique: str
    in_use_bytes: int
    saved_bytes: int
    cost: Cost
    proof: Proof
    how: str


def techniques_through(device: Device) -> tuple[LetThrough, ...]:
    """At most five techniques with which the request that ended a recording would have been served, the cheapest first.

    Empty where no request did, the memory of the device is not known, or a replay does not come to the same failure or
    cannot be made.
    """
    limits = recorded_limits(device.lifetimes)
    if (
        device.lifetimes.fatal_oom_event is None
        or limits.total_bytes is None
        or not device.trace.metadata.is_of_pytorch
    ):
        return ()
    program, row = _cut_off(device)
    try:
        if _served(program, row, limits, None).oom is None:
            return ()
    except UsageError:  # settings that the simulator does not cover
        return ()
    needed = _in_use(program, row)
    found: dict[str, LetThrough] = {}
    for name, about in _TRIED:
        change = None if about in found else _applied(program, name)
        if change is None:
            continue
        changed = change.program.settled()
        if name in _OF_TEMPORARIES and not changed.is_made[row] and not _has_stepped(program):
            continue
        if _served(changed, row, limits, change.conf).oom is None:
            in_use = _in_use(changed, row)
            technique, _ = technique_named(name)
            found[about] = LetThrough(name, in_use, needed - in_use, change.cost, technique.proof, change.how)
        if len(found) == MOST:
            break
    return tuple(found.values())


def _applied(program: Program, name: str) -> Change | None:
    """What a technique makes of a program; None where it does not apply, or changes nothing."""
    if name.startswith(_OF_WHAT_IS_NOT_TRAINED) and program.passes and not program.passes[0].has_step:
        return None
    technique, arguments = technique_named(name)
    try:
        change = technique.apply(program, arguments)
    except UsageError:
        return None
    return change if change.note is None else None


def _has_stepped(program: Program) -> bool:
    """Whether a step of the optimizer came to its end before the pass that was cut off."""
    return any(each.has_step for each in program.passes[:-1])


def _cut_off(device: Device) -> tuple[Program, int]:
    """The program with the pass that was cut off as one that saves what it holds, and the row of the failed request."""
    program = Program.of(device)
    fatal = device.lifetimes.fatal_oom_event
    assert fatal is not None, "asked of a recording that ran out of memory"
    end = (fatal - program.requests.first_event + 1) * GAP
    (row,) = np.flatnonzero(program.is_made & (program.begin == end)).tolist()
    program = _up_to(program, end)
    forward = cut_forward(device)
    passes = list(program.passes)
    held = program.is_made & (program.let_go == NEVER) & program.of_category(*_PASSING)
    if forward is not None and not np.any(held & program.of_category(Category.ACTIVATIONS)):
        return program, row  # nothing is saved for a backward pass
    if forward is not None:
        begin = (forward - program.requests.first_event + 1) * GAP - 1
    elif passes and end <= passes[-1].step_end + GAP:
        begin = passes[-1].step if passes[-1].has_step else passes[-1].forward
    else:
        return program, row
    held &= program.begin >= begin
    rows = np.flatnonzero(held)
    rows = rows[np.argsort(-program.begin[rows], kind="stable")]
    times = program.let_go.copy()
    times[rows] = end + (1 + np.arange(len(rows))) * GAP
    last = end + (2 + len(rows)) * GAP
    if forward is not None:
        backward = end + GAP // 2
        passes.append(Pass(begin, backward, last, last, last, modules_end=backward))
    elif passes[-1].has_step:
        passes[-1] = replace(passes[-1], step_end=last)
    else:
        passes[-1] = replace(passes[-1], end=last, step=last, step_end=last)
    return replace(program.freed_at(held, times), passes=tuple(passes)), row


def _served(program: Program, row: int, limits: Limits, conf: str | None) -> ReplayResult:
    """Serve what a program asks up to a request."""
    lifetimes = program.device.lifetimes
    cut = _up_to(program, _end(program, row))
    tie_rule = recorded_tie_rule(lifetimes.trace.metadata)
    config = None if conf is None else CachingAllocatorConfig.parse(conf, tie_rule=tie_rule)
    return replay_caching(lifetimes, config, limits, keeps_usage=False, requests=cut.to_requests())


def _end(program: Program, row: int) -> int:
    """When a request is made; where it is made no more, the last that the recording has."""
    if program.is_made[row]:
        return int(program.begin[row])
    return int(program.begin[program.is_made & (program.source == np.arange(len(program)))].max())


def _up_to(program: Program, end: int) -> Program:
    """What a program asks up to a time, that time included; nothing is let go of after it."""
    others, kept = program.others, program.others.time <= end
    return replace(
        program.without(program.is_made & (program.begin > end)),
        let_go=np.where(program.let_go > end, NEVER, program.let_go),
        complete=np.where(program.complete > end, NEVER, program.complete),
        others=others._replace(**{name: column[kept] for name, column in others._asdict().items()}),
    )


def _in_use(program: Program, row: int) -> int:
    """What is allocated with a request, as requested."""
    end = _end(program, row)
    live = program.is_made & (program.begin <= end) & (program.let_go > end)
    return int(program.size_bytes[live].sum())
