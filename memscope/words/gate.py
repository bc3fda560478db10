"""What a check found in words, for every surface."""

from __future__ import annotations

import re

from memscope.compare.gate import (
    BASELINE_INPUTS,
    BASELINE_PEAK,
    BASELINE_RESERVED,
    MAX_PEAK,
    MAX_RESERVED,
    Gate,
    Limit,
    Unjudged,
)
from memscope.units import format_alike, format_bytes

_NAMES = {
    MAX_PEAK: "peak allocated",
    MAX_RESERVED: "peak reserved",
    BASELINE_PEAK: "peak allocated against the baseline",
    BASELINE_RESERVED: "peak reserved against the baseline",
    BASELINE_INPUTS: "peak allocated against the baseline's steps with inputs of this size",
}

NOTHING_GREW = "nothing allocated grew: what grew is reserved memory alone"


def limit_name(limit: Limit) -> str:
    """What a limit is called."""
    return _NAMES[limit.name]


def limit_words(gate: Gate, limit: Limit) -> str:
    """``peak allocated is 25.1 GiB, 1.1 GiB over its limit of 24.0 GiB``."""
    many = len({one.device for one in gate.limits}) > 1
    name = limit_name(limit) + (f" on device {limit.device}" if many else "")
    if limit.actual_bytes is None:
        return f"{name} was not measured"
    actual, most = format_alike(limit.actual_bytes, limit.limit_bytes)
    as_given = limit.given if _plain(limit.given) != _plain(most) else ""
    most += f" ({as_given})" if as_given else ""
    if limit.is_kept:
        return f"{name} is {actual}, within its limit of {most}"
    return f"{name} is {actual}, {format_bytes(limit.excess_bytes)} over its limit of {most}"


def _plain(size: str) -> str:
    """A size without what is said in several ways: ``24.0 GiB`` and ``24gib`` are the same."""
    return re.sub(r"\.0+(?=\D)", "", size.replace(" ", "").lower())


def gate_words(gate: Gate | Unjudged) -> str:
    """What came of a check, in a line."""
    if isinstance(gate, Unjudged):
        return f"not judged: {gate.reason}"
    passed = [limit for limit in gate.limits if limit.is_kept is False]
    if passed:
        return "; ".join(limit_words(gate, limit) for limit in passed)
    if gate.untrusted:
        return f"cannot be told: {gate.untrusted[0]} (--allow-partial judges what was recorded)"
    return "; ".join(limit_words(gate, limit) for limit in gate.limits)


def blame_heading(gate: Gate) -> str:
    """What the rows of blame are."""
    if gate.baseline is None:
        return "Who holds most at the peak"
    return "What grew since the baseline"
