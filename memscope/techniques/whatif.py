"""What techniques would have made of a recorded program: each transforms it, and the allocator serves what it asks.

Replays have no limit: what is answered is what the program would need.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from memscope.device.device import Device
from memscope.errors import TrustError, UsageError
from memscope.replay.caching.engine import replay_caching
from memscope.replay.config import CachingAllocatorConfig, recorded_tie_rule
from memscope.replay.result import ReplayResult
from memscope.replay.within import Within, served_within
from memscope.techniques.program import Program
from memscope.techniques.registry import TECHNIQUES, place_of, refuse_clashes, technique_named
from memscope.techniques.technique import Change, Cost, DoesNotApplyError, Proof, Technique
from memscope.units import format_fraction

OnDone = Callable[[int, int], None]
Applied = tuple[Technique, Change]
"""A technique with what it made of a program."""
_LEAST_ERROR_FRAC = 0.001


@dataclass(frozen=True, slots=True)
class Peaks:
    """Highest allocated and reserved bytes; not of one moment."""

    allocated_bytes: int
    reserved_bytes: int


@dataclass(frozen=True, slots=True)
class WhatIf:
    """What one technique, or several together, would have made of it.

    Attributes
    ----------
    technique
        As it was asked for; several are joined by `` + ``.
    peaks
        Of the replay.
    saved_bytes
        Peak reserved bytes less than the baseline's; below 0 where it takes more.
    saved_allocated_bytes
        The same of peak allocated bytes.
    costs, hows
        One for each technique.
    note
        Why nothing changes, None where something does.
    assumes
        What was assumed, a sentence each.
    """

    technique: str
    peaks: Peaks
    saved_bytes: int
    saved_allocated_bytes: int
    costs: tuple[Cost, ...]
    proof: Proof
    hows: tuple[str, ...]
    note: str | None = None
    assumes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WhatIfs:
    """What several techniques would have made of one device.

    Attributes
    ----------
    baseline
        The replay of the program as it was: savings are counted from it.
    recorded
        What the recording did; the reserved bytes are None where they were not recorded.
    failed_bytes
        The request whose failure ended the recording: the baseline has it, what was recorded has not. None for none.
    results
        One for each technique by itself, in the order in which they were asked for; by their savings for all.
    together
        All that were asked for, one after the other; None where that is one.
    not_applicable
        Techniques that do not apply, and why; only where all were asked for.
    warnings
        What weakens the answer.
    """

    device: int
    baseline: Peaks
    recorded: tuple[int, int | None]
    results: tuple[WhatIf, ...]
    together: WhatIf | None = None
    not_applicable: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()
    failed_bytes: int | None = None


def what_if(device: Device, asked: Sequence[str], *, on_done: OnDone | None = None) -> WhatIfs:
    """Apply techniques to a device's program, each by itself, and then all of them one after the other.

    Raises
    ------
    UsageError
        If a technique is not known, its arguments cannot be used, it does not apply, or two cannot be of one program.
    TrustError
        If the program is not a recording of PyTorch's allocator.
    """
    refuse_clashes(asked)
    found = [(text, *technique_named(text)) for text in asked]
    start = Start.of(device)
    results = []
    for i, (text, technique, arguments) in enumerate(found):
        results.append(start.answer(text, [(technique, technique.apply(start.program, arguments))]))
        if on_done is not None:
            on_done(i + 1, len(found) + (len(found) > 1))
    together = None
    if len(found) > 1:
        changes = start.apply([(technique, arguments) for _, technique, arguments in found])
        together = start.answer(" + ".join(text for text, *_ in found), changes)
    return start.all(results, together)


def what_if_all(device: Device, *, on_done: OnDone | None = None) -> WhatIfs:
    """Apply every technique that there is, with the arguments that are usual, each by itself; the largest saving first.

    Raises
    ------
    TrustError
        If the program is not a recording of PyTorch's allocator.
    """
    start = Start.of(device)
    results, refused = [], []
    wanted = [(technique, arguments) for technique in TECHNIQUES.values() for arguments in technique.defaults]
    for i, (technique, arguments) in enumerate(wanted):
        text = f"{technique.name}:{arguments}" if arguments else technique.name
        try:
            results.append(start.answer(text, [(technique, technique.apply(start.program, arguments))]))
        except DoesNotApplyError as error:
            refused.append((text, str(error)))
        if on_done is not None:
            on_done(i + 1, len(wanted))
    results.sort(key=lambda result: (-result.saved_bytes, -result.saved_allocated_bytes))
    return start.all(results, None, refused)


def arranged(names: Iterable[str]) -> list[str]:
    """Techniques in the order in which they are applied, in whichever they were asked for."""
    return sorted(names, key=lambda name: place_of(technique_named(name)[0]))


@dataclass(frozen=True, slots=True)
class Start:
    """A device's program as it was, and what a replay of it needs."""

    device: Device
    program: Program
    baseline: Peaks

    @classmethod
    def of(cls, device: Device) -> Start:
        """The start of a recorded device.

        Raises
        ------
        UsageError
            If nothing was recorded.
        TrustError
            If the recording is of another allocator than PyTorch's.
        """
        if not device.trace.metadata.is_of_pytorch:
            raise TrustError(
                f"{device.recording.name}: techniques change a PyTorch program; this is a log of another allocator"
            )
        program = Program.of(device)
        if not program.is_made.any():
            raise UsageError(f"{device.recording.name}: device {device.index} has no allocations to change")
        return cls(device, program, _peaks(_replay(program, None)))

    def apply(self, asked: Sequence[tuple[Technique, str]]) -> list[Applied]:
        """Apply techniques with their arguments, each to what the one before made, in the order of :func:`arranged`.

        Raises
        ------
        UsageError
            If one does not apply, or its arguments cannot be used.
        """
        changes: list[Applied] = []
        for technique, arguments in sorted(asked, key=lambda each: place_of(each[0])):
            before = changes[-1][1].program.settled() if changes else self.program
            change = technique.apply(before, arguments)
            if changes and change.note is None and change.conf is None and before.asks_the_same(change.program):
                change = replace(change, note="changes nothing beside the others", cost=Cost(), assumes=())
            changes.append((technique, change))
        return changes

    def step(self, text: str, changes: list[Applied]) -> WhatIf:
        """The last of some changes, with what it saves of what those before it left."""
        before = self.answer("", changes[:-1]).peaks if len(changes) > 1 else self.baseline
        after, last = self.answer(text, changes), changes[-1][1]
        return replace(
            after,
            saved_bytes=before.reserved_bytes - after.peaks.reserved_bytes,
            saved_allocated_bytes=before.allocated_bytes - after.peaks.allocated_bytes,
            costs=(last.cost,),
            hows=(last.how,),
            assumes=last.assumes,
        )

    def served(self, changes: list[Applied]) -> ReplayResult:
        """Serve what some changes make of the program; without any, the program as it was."""
        program = changes[-1][1].program if changes else self.program
        return _replay(program, _conf_of(changes))

    def answer(self, text: str, changes: list[Applied], served: ReplayResult | None = None) -> WhatIf:
        """What came of some changes, of which each was applied to what the one before had made.

        Parameters
        ----------
        served
            What :meth:`served` gave for them, where that is known.
        """
        notes = [change.note for _, change in changes if change.note is not None]
        in_force = len(notes) == len(changes)
        peaks = self.baseline if in_force else _peaks(self.served(changes) if served is None else served)
        return WhatIf(
            technique=text,
            peaks=peaks,
            saved_bytes=self.baseline.reserved_bytes - peaks.reserved_bytes,
            saved_allocated_bytes=self.baseline.allocated_bytes - peaks.allocated_bytes,
            costs=tuple(change.cost for _, change in changes),
            proof="unproved" if len(changes) > 1 else changes[0][0].proof,
            hows=tuple(change.how for _, change in changes),
            note="; ".join(notes) if in_force else None,
            assumes=(
                *(sentence for _, change in changes for sentence in change.assumes),
                *(f"{technique.name}: {change.note}" for technique, change in changes if change.note and not in_force),
            ),
        )

    def all(
        self, results: Sequence[WhatIf], together: WhatIf | None, refused: Sequence[tuple[str, str]] = ()
    ) -> WhatIfs:
        """The answer, with what weakens it."""
        recorded = self.device.peak().allocated_bytes, self.device.peak_reserved().reserved_bytes
        return WhatIfs(
            device=self.device.index,
            baseline=self.baseline,
            recorded=recorded,
            results=tuple(results),
            together=together,
            not_applicable=tuple(refused),
            warnings=self.warnings(),
            failed_bytes=self.failed_bytes,
        )

    @property
    def failed_bytes(self) -> int | None:
        """The request whose failure ended the recording; None where none did."""
        fatal = self.device.lifetimes.fatal_oom_event
        return None if fatal is None else int(self.device.trace.size_bytes[fatal])

    def within(self, changes: list[Applied], peaks: Peaks, capacity_bytes: int) -> Within:
        """Whether what some changes make of the program can be served within a capacity."""
        program = changes[-1][1].program if changes else self.program
        return served_within(
            self.device.lifetimes,
            capacity_bytes,
            peaks.allocated_bytes,
            peaks.reserved_bytes,
            config=_config(program, _conf_of(changes)),
            requests=program.to_requests(),
        )

    def warnings(self) -> tuple[str, ...]:
        """What weakens every answer."""
        if self.device.lifetimes.fatal_oom_event is not None:
            return (
                "memory ran out in this recording: what the program would have gone on to need is not known; memscope "
                "oom lists the techniques with which the request would have been served",
            )
        recorded_bytes = self.device.peak_reserved().reserved_bytes
        error = self.baseline.reserved_bytes / recorded_bytes - 1 if recorded_bytes else 0.0
        if abs(error) <= _LEAST_ERROR_FRAC:
            return ()
        side = "above" if error > 0 else "below"
        return (
            f"without a limit of memory the replay's peak is {format_fraction(abs(error))} {side} the recorded one: "
            "take predictions with that error",
        )


def _replay(program: Program, conf: str | None) -> ReplayResult:
    """Serve what a program asks."""
    return replay_caching(program.device.lifetimes, _config(program, conf), requests=program.to_requests())


def _config(program: Program, conf: str | None) -> CachingAllocatorConfig | None:
    """Settings that a technique asks for; None for the recorded ones."""
    tie_rule = recorded_tie_rule(program.device.trace.metadata)
    return None if conf is None else CachingAllocatorConfig.parse(conf, tie_rule=tie_rule)


def _conf_of(changes: list[Applied]) -> str | None:
    """The settings that the last of some changes asks for."""
    return next((change.conf for _, change in reversed(changes) if change.conf is not None), None)


def _peaks(result: ReplayResult) -> Peaks:
    return Peaks(int(result.usage.allocated_bytes.max()), result.peak_reserved_bytes)
