"""A finding: what was found, how bad it is, the numbers that prove it, and what it shows of its allocations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from memscope.device.device import Device
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import Int64Array
from memscope.units import format_bytes


class Severity(IntEnum):
    """How much a finding matters; the order is the order of reports."""

    INFO = 0
    """Worth knowing; nothing need be done."""
    WARNING = 1
    """Costs memory or time."""
    SEVERE = 2
    """Likely to end in, or to have caused, an out-of-memory error or a stall."""

    @property
    def label(self) -> str:
        """The name as it is written everywhere: ``warning``."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found on one device.

    Attributes
    ----------
    kind
        A fixed name: ``leak``, ``fragmentation``.
    title
        What it is, in one line with its numbers.
    text
        What it means and what can be done, in a sentence or two.
    bytes
        The bytes that it is about, None where it is not about bytes.
    event
        The moment that shows it, −1 for the start.
    view
        The dashboard's view that shows it: ``timeline``, ``map`` or ``allocations``.
    rows
        Allocations that show it, the first ones most.
    sites
        Lines of code that it comes from.
    evidence
        Its numbers by name; None is "not measured".
    fix
        What to change, as a phrase; empty where there is nothing to be done.
    returned_bytes
        How much lower reserved memory peaks in a replay with the fix; None where no replay can tell.
    is_spare
        Whether the recording ended in a failure, so that it is counted from all that PyTorch could have: the peak that
        was recorded is without the request that failed, which the replay serves.
    """

    kind: str
    severity: Severity
    device: int
    title: str
    text: str
    bytes: int | None
    event: int = NONE_ID
    view: str = "timeline"
    rows: tuple[int, ...] = ()
    sites: tuple[str, ...] = ()
    evidence: Mapping[str, int | float | str | None] = field(default_factory=dict)
    fix: str = ""
    returned_bytes: int | None = None
    is_spare: bool = False

    @property
    def held_bytes(self) -> int:
        """What is held of what it is about: for a leak all that has gathered, not only what was judged."""
        return int(self.evidence.get("live_bytes") or self.bytes or 0)

    @property
    def fix_words(self) -> str:
        """The fix and what it returns, in a sentence; empty without one."""
        if not self.fix or self.returned_bytes is None:
            return f"Fix: {self.fix}." if self.fix else ""
        if self.is_spare:
            left = format_bytes(self.returned_bytes) if self.returned_bytes else "nothing"
            return f"Fix: {self.fix}. By replay the request that failed is served then, with {left} to spare."
        if not self.returned_bytes:
            return f"Fix: {self.fix}. By replay the peak of reserved memory stays as it is: it lies elsewhere."
        return f"Fix: {self.fix}. By replay reserved memory peaks {format_bytes(self.returned_bytes)} lower."


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything found on one device, worst first, and what could not be looked for."""

    device: int
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]


def in_order(findings: list[Finding]) -> tuple[Finding, ...]:
    """Worst first; of equal severity, those about most bytes first."""
    return tuple(sorted(findings, key=lambda f: (-f.severity, -(f.bytes or 0), f.kind, f.event)))


_GROWING = ("leak", "kv-kept", "larger-each-step", "outputs-joined")
"""Kinds of findings about what keeps more and more memory."""


def growing_until(findings: Findings, event: int) -> tuple[Finding, ...]:
    """What kept more and more memory up to an event."""
    return tuple(one for one in findings.findings if one.kind in _GROWING and one.event <= event)


UNKNOWN_SITE = "no stack recorded"


def site_name(device: Device, frame_id: int) -> str:
    """A line of code as text, −1 for where no stack was recorded."""
    return device.recording.sites.name_of_frame(frame_id) or UNKNOWN_SITE


def sites_by_bytes(device: Device, rows: Int64Array, size_bytes: Int64Array, limit: int = 3) -> tuple[str, ...]:
    """The lines of code that most of some rows' bytes come from, most first."""
    frames, of_row = np.unique(device.site_frames_of(rows), return_inverse=True)
    total = np.zeros(len(frames), np.int64)
    np.add.at(total, of_row.reshape(-1), size_bytes)
    order = np.argsort(-total, kind="stable")[:limit]
    return tuple(site_name(device, int(frames[i])) for i in order if total[i] > 0)


def largest_rows(device: Device, rows: Iterable[int] | Int64Array, limit: int = 20) -> tuple[int, ...]:
    """The rows with the largest blocks."""
    chosen = np.asarray(list(rows), np.int64)
    order = np.argsort(-device.allocations.block_bytes[chosen], kind="stable")[:limit]
    return tuple(int(row) for row in chosen[order])
