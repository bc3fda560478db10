"""What techniques would have made of one device, kept with its trace: each answer once, made in the background."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Lock

from memscope.analysis import Analysis
from memscope.device.device import Device
from memscope.figures.whatif import DrawnCourse, reduced_course
from memscope.gpus import find_usable_gpu
from memscope.techniques.course import applied_together, course_before
from memscope.techniques.fit import FitPlan, fit_plan
from memscope.techniques.registry import clash_of, refuse_clashes, technique_named
from memscope.techniques.technique import Cost
from memscope.techniques.whatif import Start, WhatIf, WhatIfs, what_if_all
from memscope_dashboard.board import IDLE, Board
from memscope_dashboard.jobs import Jobs, Progress, Report

_N_KEPT = 16
MAX_TOGETHER = 12
"""Techniques that can be applied together."""


@dataclass(frozen=True, slots=True)
class AppliedOne:
    """One technique among others: as it was asked for, what to write, what it costs, and why it changes nothing."""

    technique: str
    how: str
    cost: Cost
    note: str | None


@dataclass(frozen=True, slots=True)
class Applied:
    """What some techniques make of the run together.

    Attributes
    ----------
    changes
        Each technique, in the order in which they are applied.
    """

    result: WhatIf
    changes: tuple[AppliedOne, ...]
    before: DrawnCourse
    after: DrawnCourse


@dataclass(frozen=True, slots=True)
class WhatIfAsked:
    """What a page asks: techniques to apply together, and the card that the run shall fit; an empty text for none."""

    techniques: tuple[str, ...] = ()
    gpu: str = ""


@dataclass(frozen=True, slots=True)
class WhatIfState:
    """What is known of what was asked, and how far the rest is."""

    every: WhatIfs | None
    applied: Applied | None
    plan: FitPlan | None
    trying: Progress
    applying: Progress
    planning: Progress

    @property
    def is_active(self) -> bool:
        """Whether it will still change by itself."""
        return any(progress.is_active for progress in (self.trying, self.applying, self.planning))


class WhatIfBoard:
    """The techniques of a device.

    Parameters
    ----------
    analysis
        The trace.
    device
        One of its devices.
    jobs
        Where its work is started.
    """

    def __init__(self, analysis: Analysis, device: Device, jobs: Jobs) -> None:
        self._analysis = analysis
        self._device = device
        self._cancelled: WhatIfAsked | None = None
        turn = Lock()
        self._every: Board[None, WhatIfs] = Board(jobs, turn)
        self._applied: Board[tuple[str, ...], Applied] = Board(jobs, n_kept=_N_KEPT)  # does not wait for the others
        self._plans: Board[str, FitPlan] = Board(jobs, turn, _N_KEPT)

    def ask(self, asked: WhatIfAsked, *, again: bool = False) -> None:
        """See to it that what is asked is known; what is applied does not wait for the rest.

        What was cancelled or failed is only begun again if ``again`` says so.

        Raises
        ------
        UsageError
            If a technique or a card is not known, or two techniques cannot be of one program.
        """
        refuse_clashes(asked.techniques)
        card = find_usable_gpu(asked.gpu) if asked.gpu else None
        if asked == self._cancelled and not again:
            return
        self._cancelled = None
        if asked.techniques:
            self._applied.ask(asked.techniques, lambda report: self._apply(asked.techniques, report), again=again)
        self._every.ask(None, self._try, again=again)
        if card is not None:
            self._plans.ask(asked.gpu, lambda report: fit_plan(self._device, card, report), again=again)

    def state(self, asked: WhatIfAsked) -> WhatIfState:
        """What is known of what was asked."""
        return WhatIfState(
            every=self._every.answer(None),
            applied=self._applied.answer(asked.techniques) if asked.techniques else None,
            plan=self._plans.answer(asked.gpu) if asked.gpu else None,
            trying=self._every.progress(None),
            applying=self._applied.progress(asked.techniques) if asked.techniques else IDLE,
            planning=self._plans.progress(asked.gpu) if asked.gpu else IDLE,
        )

    def wait(self, asked: WhatIfAsked, timeout_s: float) -> None:
        """Wait a little for what is asked, so that short work needs no second question."""
        if asked.techniques:
            self._applied.wait(asked.techniques, timeout_s)
        else:
            self._every.wait(None, timeout_s)

    def cancel(self, asked: WhatIfAsked | None = None) -> None:
        """End what waits or runs; what was asked is not begun again by itself."""
        self._cancelled = asked
        for board in (self._every, self._applied, self._plans):
            board.cancel()

    def close(self) -> None:
        """The trace is not kept any longer: end its work."""
        self.cancel()

    @cached_property
    def _start(self) -> Start:
        self._analysis.require_consistent()
        return Start.of(self._device)

    @cached_property
    def _before(self) -> DrawnCourse:
        return reduced_course(course_before(self._start))

    def _try(self, report: Report) -> WhatIfs:
        self._analysis.require_consistent()
        return what_if_all(self._device, on_done=report)

    def _apply(self, names: tuple[str, ...], report: Report) -> Applied:
        n_steps = 3
        start, before = self._start, self._before
        report(1, n_steps)
        changes = start.apply([technique_named(name) for name in names])
        report(2, n_steps)
        found = applied_together(start, " + ".join(names), changes)
        asked = {technique_named(name)[0].name: name for name in names}
        listed = tuple(
            AppliedOne(asked[technique.name], change.how, change.cost, change.note)
            for technique, change in found.changes
        )
        return Applied(found.result, listed, before, reduced_course(found.course))


def toggled(chosen: Sequence[str], name: str) -> list[str]:
    """The techniques after one was put in or taken out; those that cannot be of one program with it make way."""
    kept = [other for other in chosen if other != name]
    if len(kept) < len(chosen):
        return kept
    return [other for other in kept if clash_of((other, name)) is None] + [name]
