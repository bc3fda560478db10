"""The context in which a dry run's allocations are made: the phase, the module that runs; and its marks."""

from __future__ import annotations

from typing import Any, NamedTuple

from memscope.capture.dry_run._device import SimulatedDevice
from memscope.capture.ownership import ModulePaths
from memscope.trace.builder import TraceBuilder
from memscope.trace.schema import MarkKind


class _Mark(NamedTuple):
    event: int
    time_ns: int
    kind: MarkKind
    label: str


class RunContext:
    """Knows the outermost phase and the innermost module, and keeps the marks until the trace is made.

    Parameters
    ----------
    device
        Whose events marks come between.
    paths
        What modules are called.

    Attributes
    ----------
    running
        The modules that are running, the innermost last.
    serial
        Number of the phase that is open, from 1 on; 0 outside of every phase.
    """

    def __init__(self, device: SimulatedDevice, paths: ModulePaths) -> None:
        self._device = device
        self._paths = paths
        self._phase = ""
        self._n_phases = 0
        self._marks: list[_Mark] = []
        self._optimizer_steps: list[_Mark] = []
        self.running: list[Any] = []
        self.serial = 0

    @property
    def place(self) -> str:
        """Path of the innermost running module, else the phase; empty outside of both."""
        return self._paths.of(self.running[-1]) if self.running else self._phase

    def mark(self, kind: MarkKind, label: str, *, is_automatic: bool) -> None:
        """A phase begins or ends, or a step ended."""
        mark = self._now(kind, label)
        if is_automatic and kind == MarkKind.STEP:
            self._optimizer_steps.append(mark)
            return
        self._marks.append(mark)
        if is_automatic:
            begins = kind == MarkKind.PHASE_BEGIN
            self._n_phases += begins
            self.serial, self._phase = (self._n_phases, label) if begins else (0, "")

    def write_marks(self, builder: TraceBuilder) -> None:
        """Write the marks until now into a trace; a phase that is open ends there.

        Optimizer steps are the program's steps unless it names its own.
        """
        marks = [*self._marks, self._now(MarkKind.PHASE_END, self._phase)] if self.serial else self._marks
        if not any(mark.kind == MarkKind.STEP for mark in marks):
            marks = sorted([*marks, *self._optimizer_steps], key=lambda mark: mark.event)
        for mark in marks:
            builder.add_mark(mark.kind, mark.label, mark.time_ns, event=mark.event)

    def _now(self, kind: MarkKind, label: str) -> _Mark:
        return _Mark(self._device.builder.n_events, self._device.clock(), kind, label)
