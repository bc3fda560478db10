"""Steps, phases and the module that is running: the context in which allocations are made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from memscope.capture.dry_run.device import SimulatedDevice
from memscope.trace.builder import TraceBuilder
from memscope.trace.schema import MarkKind


class PhaseTracker:
    """Knows the outermost phase (forward, backward, optimizer, generate or the user's own) and the module path.

    Only the outermost phase counts and is marked: a forward pass inside ``generate`` belongs to ``generate``, the
    recomputation of a checkpoint to ``backward``. Names given by the user are marked at any depth.
    """

    def __init__(self, device: SimulatedDevice) -> None:
        self._device = device
        self._depth = 0
        self._n_phases = 0
        self._name = ""
        self._paths: list[str] = []
        self._marks: list[tuple[int, int, MarkKind, str]] = []
        self._optimizer_steps: list[tuple[int, int, MarkKind, str]] = []
        self.serial = 0
        self.n_steps = 0

    @property
    def name(self) -> str:
        """The outermost phase's name, empty outside of every phase."""
        return self._name

    @property
    def place(self) -> str:
        """Path of the innermost running module, else the phase."""
        return self._paths[-1] if self._paths else self._name

    def begin(self, name: str) -> None:
        """Enter a phase."""
        self._depth += 1
        if self._depth == 1:
            self._n_phases += 1
            self.serial = self._n_phases
            self._name = name
            self._mark(MarkKind.PHASE_BEGIN, name)

    def end(self) -> None:
        """Leave the innermost phase."""
        self._depth -= 1
        if self._depth == 0:
            self._mark(MarkKind.PHASE_END, self._name)
            self.serial = 0
            self._name = ""

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """A phase around a block."""
        self.begin(name)
        try:
            yield
        finally:
            self.end()

    @contextmanager
    def user_phase(self, name: str) -> Iterator[None]:
        """A phase that the user named: always marked, and no boundary of temporaries."""
        self._mark(MarkKind.PHASE_BEGIN, name)
        try:
            yield
        finally:
            self._mark(MarkKind.PHASE_END, name)

    def enter_module(self, path: str) -> None:
        """A module starts to run."""
        self._paths.append(path)

    def leave_module(self) -> None:
        """The innermost module is done."""
        self._paths.pop()

    def step(self, name: str | None = None) -> None:
        """A step ended; the program says so."""
        self._mark(MarkKind.STEP, str(self.n_steps) if name is None else name)
        self.n_steps += 1

    def optimizer_step(self) -> None:
        """An optimizer's step ended: a step of the program, if the program itself never names its own."""
        self._optimizer_steps.append(self._now(MarkKind.STEP, str(len(self._optimizer_steps))))

    def write_marks(self, builder: TraceBuilder) -> None:
        """Write the marks until now into a trace; a phase that is open ends there."""
        marks = [*self._marks, self._now(MarkKind.PHASE_END, self._name)] if self._depth else self._marks
        marks = marks if self.n_steps else sorted([*marks, *self._optimizer_steps], key=lambda m: m[0])
        for event, time_ns, kind, label in marks:
            builder.add_mark(kind, label, time_ns, event=event)

    def _now(self, kind: MarkKind, label: str) -> tuple[int, int, MarkKind, str]:
        return self._device.builder.n_events, self._device.clock(), kind, label

    def _mark(self, kind: MarkKind, label: str) -> None:
        self._marks.append(self._now(kind, label))
