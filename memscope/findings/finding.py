"""A finding: what was found, how bad it is, and the numbers that prove it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from memscope.trace.schema import NONE_ID


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


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything found on one device, worst first, and what could not be looked for."""

    device: int
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]


def in_order(findings: list[Finding]) -> tuple[Finding, ...]:
    """Worst first; of equal severity, those about most bytes first."""
    return tuple(sorted(findings, key=lambda f: (-f.severity, -(f.bytes or 0), f.kind, f.event)))
