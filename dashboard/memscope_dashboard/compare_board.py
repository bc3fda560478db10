"""Which two moments a page compares, and what is known of them: made in the background, kept for every page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from threading import RLock
from typing import Any

from memscope.compare.diff import diff_moments
from memscope.compare.difference import By, Difference
from memscope.compare.moments import common_devices, highest_in_step, moment_asked
from memscope.compare.trees import DifferenceTree, difference_tree
from memscope.device.device import Device, Moment
from memscope.errors import UsageError
from memscope_dashboard.board import Board
from memscope_dashboard.jobs import Jobs, Progress, Report
from memscope_dashboard.query import Query
from memscope_dashboard.store import TraceStore

PEAK = "peak"
_STEP, _EVENT = "step:", "event:"
_N_KEPT = 4
MAX_STEPS = 1_000
"""Steps that a list offers."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two moments, each of a trace: its peak, a step at its highest (``step:NAME``), or after ``event:N``.

    Attributes
    ----------
    device
        That of both which is wanted, if both have it.
    """

    a: str
    at_a: str
    b: str
    at_b: str
    device: int | None = None

    @classmethod
    def usual(cls, store: TraceStore, query: Query) -> Pair:
        """The peaks of two traces: the first one's and that of the one looked at, or of the second."""
        ids = store.trace_ids
        second = query.trace_id if query.trace_id != ids[0] else ids[min(1, len(ids) - 1)]
        return cls(ids[0], PEAK, second, PEAK, query.device)

    @classmethod
    def of(cls, fields: Mapping[str, Any], usual: Pair) -> Pair:
        """The moments that fields name, of an address or of a page; what they leave out is the usual."""
        a, b = str(fields.get("a") or usual.a), str(fields.get("b") or usual.b)
        return cls(a, str(fields.get("at_a") or PEAK), b, str(fields.get("at_b") or PEAK), usual.device)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Pair:
        """Read what :meth:`data` wrote to the browser's store."""
        a, at_a, b, at_b = (str(data[name]) for name in ("a", "at_a", "b", "at_b"))
        return cls(a, at_a, b, at_b, data["device"])

    def data(self) -> dict[str, Any]:
        """As a JSON-able dictionary."""
        return {name: getattr(self, name) for name in ("a", "at_a", "b", "at_b", "device")}

    @property
    def is_one_moment(self) -> bool:
        """Whether there is nothing to compare."""
        return (self.a, self.at_a) == (self.b, self.at_b)

    def swapped(self) -> Pair:
        """The same the other way round."""
        return Pair(self.b, self.at_b, self.a, self.at_a, self.device)


def step_text(label: str) -> str:
    """How a step is asked for."""
    return f"{_STEP}{label}"


def event_text(event: int) -> str:
    """How the moment after an event is asked for."""
    return f"{_EVENT}{event}"


def moment_named(device: Device, text: str) -> Moment:
    """The moment that a text asks for.

    Raises
    ------
    UsageError
        If it is none, or the device does not have it.
    """
    if text == PEAK:
        return device.peak()
    if text.startswith(_STEP):
        return highest_in_step(device, text.removeprefix(_STEP))
    number = text.removeprefix(_EVENT)
    if not text.startswith(_EVENT) or not number.removeprefix("-").isdecimal() or len(number) > 12:
        raise UsageError(f"{text!r} is no moment: choose the peak, a step or an event")
    return moment_asked(device, int(number))


def moment_choices(device: Device, chosen: str) -> list[dict[str, str]]:
    """What a list of moments offers: the peak, the steps, and the event that is chosen."""
    found = {PEAK: "peak"}
    if device.steps is not None:
        found |= {step_text(label): step_words(label) for label in device.steps.labels[:MAX_STEPS]}
    if chosen not in found:
        found[chosen] = f"event {int(chosen.removeprefix(_EVENT)):,}" if chosen.startswith(_EVENT) else chosen
    return [{"value": value, "label": label} for value, label in found.items()]


def step_words(label: str) -> str:
    """A step by its name, ``step 3``."""
    return label if label.lower().startswith("step") else f"step {label}"


class Compared:
    """Two moments, and what was worked out of their difference: each way of it once."""

    def __init__(self, a: Moment, b: Moment) -> None:
        self.a = a
        self.b = b
        self._differences: dict[By, Difference] = {}
        self._trees: dict[tuple[bool, bool], DifferenceTree] = {}
        self._guard = RLock()

    def difference(self, by: By = By.HOLDER) -> Difference:
        """Their difference, with rows by holders, modules, lines or categories."""
        with self._guard:
            if by not in self._differences:
                self._differences[by] = diff_moments(self.a, self.b, by)
            return self._differences[by]

    def tree(self, *, is_by_module: bool, own_only: bool) -> DifferenceTree:
        """Their calls or modules as one tree."""
        with self._guard:
            key = is_by_module, own_only and not is_by_module
            if key not in self._trees:
                self._trees[key] = difference_tree(self.a, self.b, is_by_module=key[0], own_only=key[1])
            return self._trees[key]


class CompareBoard:
    """The comparisons of a store's traces.

    Parameters
    ----------
    store
        The traces.
    jobs
        Where its work is started.
    """

    def __init__(self, store: TraceStore, jobs: Jobs) -> None:
        self._store = store
        self._board: Board[Pair, Compared] = Board(jobs, n_kept=_N_KEPT)

    def ask(self, pair: Pair, *, again: bool = False) -> Progress:
        """Begin to compare, unless that is known or on its way; how far it is."""
        return self._board.ask(pair, lambda report: self._compare(pair, report), again=again)

    def wait(self, pair: Pair, timeout_s: float) -> Progress:
        """Wait a little for its end."""
        return self._board.wait(pair, timeout_s)

    def compared(self, pair: Pair) -> Compared | None:
        """What is known of two moments; None as long as it is nothing."""
        return self._board.answer(pair)

    def close(self) -> None:
        """End what waits or runs."""
        self._board.close()

    def _compare(self, pair: Pair, report: Report) -> Compared:
        n_steps = 4
        a = self._store.analysis(pair.a)
        report(1, n_steps)
        b = a if pair.b == pair.a else self._store.analysis(pair.b)
        report(2, n_steps)
        if a is b:
            device = a.device(pair.device if pair.device in a.trace.devices else None)
            devices = device, device
        else:
            common = common_devices(a, b)
            devices = next((both for both in common if both[1].index == pair.device), common[0])
        found = Compared(moment_named(devices[0], pair.at_a), moment_named(devices[1], pair.at_b))
        found.difference()
        report(3, n_steps)
        found.tree(is_by_module=False, own_only=True)
        return found


def board_of(store: TraceStore) -> CompareBoard:
    """The comparisons of a store, kept with it."""
    return store.remembered_for_all("compare board", lambda: CompareBoard(store, store.jobs))
