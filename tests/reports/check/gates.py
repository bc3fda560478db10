"""Checks that came out in every way."""

from __future__ import annotations

from pathlib import Path

from memscope.compare.baseline import baseline_of
from memscope.compare.checks import Check
from memscope.compare.gate import Gate, Unjudged, run_check
from memscope.trace.categories import Category
from tests.compare.runs import MiB, Take, line, run

HERE = "/home/me/project"
BEFORE = [Take(20 * MiB, Category.WEIGHTS, "fc.weight", line(1)), Take(4 * MiB, calls=line(5))]
AFTER = [
    *BEFORE,
    Take(8 * MiB, Category.ACTIVATIONS, "fc output", line(7)),
    Take(2 * MiB, Category.INPUTS, "x", line(7)),
]


def passed() -> Gate:
    """A limit that is passed by 10 MiB, all of them of line 7."""
    return run_check(Check("run", Path("run"), max_peak_bytes=24 * MiB), run(AFTER))


def grown() -> Gate:
    """The same against a baseline."""
    check = Check("run", Path("run"), baseline=Path("base.json"))
    return run_check(check, run(AFTER), baseline_of([run(BEFORE)]))


def kept() -> Gate:
    """Two limits that are kept."""
    check = Check("kept", Path("run"), max_peak_bytes=34 * MiB, max_reserved_bytes=1 << 40)
    return run_check(check, run(AFTER))


def untold(name: str = "untold") -> Gate:
    """A limit that seems to be kept, of a recording that lost events."""
    return run_check(Check(name, Path("run"), max_peak_bytes=34 * MiB), run(AFTER, n_events_lost=3))


def unjudged() -> Unjudged:
    """A check of a trace that is not there."""
    check = Check("gone", Path("folder/gone.memscope"), max_peak_bytes=34 * MiB)
    return Unjudged(check, "folder/gone.memscope: cannot be read: No such file or directory", 1)
