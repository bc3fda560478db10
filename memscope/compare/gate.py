"""Whether a recording keeps within its limits, and who holds the excess.

A limit that was passed is passed for certain, whatever is missing of the recording. That one was kept is believed only
where nothing can be missing, or the user says that a part of the run will do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memscope.analysis import Analysis
from memscope.compare.baseline import Baseline, changed_since, facts_of
from memscope.compare.checks import Check
from memscope.compare.diff import rows_at
from memscope.compare.difference import Row
from memscope.compare.for_inputs import expected
from memscope.device.device import Device
from memscope.trace.categories import Category
from memscope.units import format_bytes, format_items

_GRANULE_BYTES = 2 << 20
"""What the allocator takes from the driver at least: peaks of reserved memory that differ by one are told apart by
chance alone."""
MAX_PEAK = "max-peak"
MAX_RESERVED = "max-reserved"
BASELINE_PEAK = "baseline-peak"
BASELINE_RESERVED = "baseline-reserved"
BASELINE_INPUTS = "baseline-peak-for-inputs"


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit, and what was measured.

    Attributes
    ----------
    name
        ``max-peak``, ``max-reserved``, ``baseline-peak``, ``baseline-reserved``; or ``baseline-peak-for-inputs``: what
        steps of the baseline need for inputs as large as this run has at its peak.
    device
        The device that it was measured on.
    limit_bytes
        The most that is let through.
    actual_bytes
        What was measured; None where reserved memory was not recorded.
    given
        The limit as it was written, such as ``400MB``; empty where it was not written as a size.
    """

    name: str
    device: int
    limit_bytes: int
    actual_bytes: int | None
    given: str = ""

    @property
    def is_kept(self) -> bool | None:
        """Whether it was kept; None where it was not measured."""
        return None if self.actual_bytes is None else self.actual_bytes <= self.limit_bytes

    @property
    def excess_bytes(self) -> int:
        """What was measured beyond it."""
        return max((self.actual_bytes or 0) - self.limit_bytes, 0)


@dataclass(frozen=True, slots=True)
class Gate:
    """What came of one check.

    Attributes
    ----------
    analysis
        The recording.
    limits
        Each limit, of each device.
    blame
        Who holds the excess: against the baseline what differs since, what grew most first; else who holds most at the
        peak. They sum to the difference, or to the peak. Rows that hold nothing of it are none of them.
    blamed_device
        The device that it is of; None where every limit was kept.
    baseline
        What it was compared with, None where only with sizes.
    untrusted
        Why what was kept may not have been, a sentence each; empty where it was for certain.
    notes
        What differs from the baseline beside memory.
    """

    check: Check
    analysis: Analysis
    limits: tuple[Limit, ...]
    blame: tuple[Row, ...]
    blamed_device: int | None
    baseline: Baseline | None
    untrusted: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def is_exceeded(self) -> bool:
        """Whether a limit was passed."""
        return any(limit.is_kept is False for limit in self.limits)

    @property
    def is_ok(self) -> bool:
        """Whether every limit was kept, for certain."""
        return not self.is_exceeded and not self.untrusted

    @property
    def exit_code(self) -> int:
        """0 if all is well, 2 if a limit was passed, 3 if that cannot be told."""
        return 2 if self.is_exceeded else 3 if self.untrusted else 0

    @property
    def grown(self) -> tuple[Row, ...]:
        """The rows of blame that hold something of the excess: those that shrank since the baseline are none."""
        return tuple(row for row in self.blame if row.delta_bytes > 0)


@dataclass(frozen=True, slots=True)
class Unjudged:
    """A check of several that could not be made: its trace or its baseline cannot be read, or has no such device.

    Attributes
    ----------
    reason
        Why, in one line that names the file.
    exit_code
        As the error has it that says so: 1, or 3 where the trace contradicts itself.
    """

    check: Check
    reason: str
    exit_code: int

    @property
    def is_ok(self) -> bool:
        """Never: nothing was shown to be kept."""
        return False


def run_check(check: Check, analysis: Analysis, baseline: Baseline | None = None) -> Gate:
    """Hold a recording to its limits.

    Raises
    ------
    ContradictionError
        If the recording contradicts itself.
    UsageError
        If it has no such device.
    """
    analysis.require_consistent()
    index = check.device if check.device is not None or baseline is None else baseline.device
    devices = (analysis.device(index),) if index is not None else analysis.devices_asked()
    limits = tuple(limit for device in devices for limit in _limits(check, device, baseline))
    passed = max((limit for limit in limits if limit.excess_bytes), key=lambda limit: limit.excess_bytes, default=None)
    blamed = None if passed is None else analysis.device(passed.device)
    untrusted = () if check.allow_partial else tuple(text for one in devices for text in _missing(analysis, one))
    not_measured = [limit for limit in limits if limit.actual_bytes is None]
    if not_measured:
        untrusted += ("its segments were not recorded: reserved memory was not measured",)
    if baseline is not None and baseline.peak_reserved is None and check.max_reserved_bytes is None:
        notes: tuple[str, ...] = ("reserved memory was not measured in the baseline, and is not compared",)
    else:
        notes = ()
    return Gate(
        check=check,
        analysis=analysis,
        limits=limits,
        blame=() if blamed is None else _blame(blamed, baseline),
        blamed_device=None if blamed is None else blamed.index,
        baseline=baseline,
        untrusted=tuple(dict.fromkeys(untrusted)),
        notes=notes + (() if baseline is None else _differing(baseline, devices[0])),
    )


def _limits(check: Check, device: Device, baseline: Baseline | None) -> list[Limit]:
    allocated, reserved = device.peak().allocated_bytes, device.peak_reserved().reserved_bytes
    found = []
    if check.max_peak_bytes is not None:
        found.append(Limit(MAX_PEAK, device.index, check.max_peak_bytes, allocated, check.max_peak_given))
    if check.max_reserved_bytes is not None:
        given = check.max_reserved_given
        found.append(Limit(MAX_RESERVED, device.index, check.max_reserved_bytes, reserved, given))
    if baseline is not None:
        bands = (
            (BASELINE_PEAK, baseline.peak_allocated, allocated),
            (BASELINE_RESERVED, baseline.peak_reserved, reserved),
        )
        for name, band, actual in bands:
            if band is not None:
                granule = _GRANULE_BYTES if name == BASELINE_RESERVED else 0
                found.append(Limit(name, device.index, band.limit_bytes(check.tolerance, granule), actual))
        for_inputs = _limit_for_inputs(check, device, baseline)
        found += [] if for_inputs is None else [for_inputs]
    return found


def _limit_for_inputs(check: Check, device: Device, baseline: Baseline) -> Limit | None:
    """What may be allocated for inputs of this size, where the baseline's steps had several and so can tell."""
    allocated, inputs = device.usage.allocated_bytes, device.category_usage.get(Category.INPUTS)
    at = int(np.argmax(allocated))
    most = None if inputs is None else expected(baseline.for_inputs, int(inputs[at]))
    if most is None:
        return None
    limit_bytes = most.highest_bytes + max(check.tolerance.of(most.highest_bytes), most.noise_bytes)
    return Limit(BASELINE_INPUTS, device.index, limit_bytes, int(allocated[at]))


def _blame(device: Device, baseline: Baseline | None) -> tuple[Row, ...]:
    rows = rows_at(device.peak()) if baseline is None else changed_since(baseline, device)
    return tuple(row for row in rows if row.delta_bytes)


def _missing(analysis: Analysis, device: Device) -> list[str]:
    """Why the peak may have been higher than the recording says."""
    completeness = analysis.completeness
    found = []
    if completeness.n_events_lost:
        found.append(f"{format_items(completeness.n_events_lost, 'event')} lost: the peak may be among them")
    elif completeness.n_unmatched_frees:
        found.append(
            f"{format_items(completeness.n_unmatched_frees, 'free')} of memory that was never seen to be allocated: "
            "the recording began in mid-life, or its ring overflowed, and the peak may have come before"
        )
    elif completeness.n_events_lost is None:
        held = format_bytes(completeness.preexisting_bytes)
        found.append(f"{held} were in use before the first event: whether the peak came before cannot be told")
    if device.lifetimes.fatal_oom_event is not None:
        found.append("memory ran out and ended the run: it needs more than its peak")
    return found


def _differing(baseline: Baseline, device: Device) -> tuple[str, ...]:
    words = {
        "origin": "recorded by",
        "torch_version": "torch",
        "alloc_conf": "allocator settings",
        "device_name": "device",
    }
    now = facts_of(device)
    return tuple(
        f"the baseline has {words[name]} {_fact(baseline.facts[name])}, this run {_fact(now[name])}"
        for name in words
        if name in baseline.facts and baseline.facts[name] != now[name]
    )


def _fact(value: str | None) -> str:
    return "not recorded" if value is None else value or "default"
