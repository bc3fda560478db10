"""What a replay may take of its device, in one shape from the options of a command to the core."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

import numpy as np

from memscope._core import caching
from memscope.errors import UsageError
from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.reclaims import refused_above
from memscope.units import format_bytes, format_items

GIVEN = "given"
_MAX_DIGITS = 9
_NAMED_FRACTION = re.compile(r"(?:^|,)per_process_memory_fraction:(\d*\.?\d+)(?:,|$)")
FULL_FRAC = 0.02
"""A device with less than this share free, wherever it lies, is full: a better layout serves a request or two more."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The memory that an allocator can have.

    Attributes
    ----------
    total_bytes
        Memory of the device. None: as recorded where :func:`limits_for` is asked, no limit in a replay.
    reserved_by_others_bytes
        The part of it that contexts, libraries and other processes hold. None: as recorded, or nothing.
    memory_fraction
        Share of the device that PyTorch's allocator may use, whatever its settings say; None for what they, or else the
        recording, say. Other allocators know of no fraction.
    source, fraction_source
        How the total is known, and the fraction.
    """

    total_bytes: int | None = None
    reserved_by_others_bytes: int | None = None
    memory_fraction: float | None = None
    source: str = GIVEN
    fraction_source: str = GIVEN

    @property
    def is_as_recorded(self) -> bool:
        """Whether nothing of it was given: then a replay of the recorded settings must end as the recording did."""
        return GIVEN not in self.source

    @property
    def left_bytes(self) -> int | None:
        """What the driver can give out, None without a limit."""
        if self.total_bytes is None:
            return None
        return max(self.total_bytes - (self.reserved_by_others_bytes or 0), 0)

    def cap_bytes(self, memory_fraction: float) -> int | None:
        """What a fraction of the device is, that of these limits before the one given; None where nothing caps it."""
        fraction = memory_fraction if self.memory_fraction is None else self.memory_fraction
        return None if self.total_bytes is None or fraction >= 1 else int(fraction * self.total_bytes)


def checked_limits(limits: Limits) -> Limits:
    """What someone asks for, if there is such a device.

    Raises
    ------
    UsageError
        If it has no memory, all of it is held by others, or the fraction is none.
    """
    total, others, fraction = limits.total_bytes, limits.reserved_by_others_bytes, limits.memory_fraction
    if total is not None and total <= 0:
        raise UsageError("a capacity must be above 0")
    if total is not None and others is not None and others >= total:
        held = format_bytes(others)
        raise UsageError(f"nothing is left: others hold {held} of a capacity of {format_bytes(total)}")
    if fraction is not None and not 0 < fraction <= 1:
        raise UsageError(f"a memory fraction of {fraction:g} is not between 0 and 1")
    return limits


NO_LIMITS = Limits()
"""A device without end."""


def limits_for(lifetimes: DeviceLifetimes, given: Limits = NO_LIMITS) -> Limits:
    """What is given, and the recorded device's where nothing is."""
    others, fraction = given.reserved_by_others_bytes, given.memory_fraction
    recorded, known, source = recorded_limits(lifetimes), given, GIVEN
    if given.total_bytes is None:
        known = recorded
        source = known.source if others is None and fraction is None else f"{known.source}; the rest {GIVEN}"
    others = (known.reserved_by_others_bytes or 0) if others is None else others
    if fraction is not None or known.total_bytes is None:
        return Limits(known.total_bytes, others, fraction, source)
    # A program sets its fraction of whatever device it runs on.
    return Limits(known.total_bytes, others, recorded.memory_fraction, source, recorded.fraction_source)


def recorded_limits(lifetimes: DeviceLifetimes) -> Limits:
    """The recorded device's memory, what of it is not the allocator's, and the cap on the allocator's share.

    The fraction is as recorded, or else inferred from requests that were refused with room (:func:`refused_with_room`).
    """
    memory = _recorded_memory(lifetimes)
    metadata, source = lifetimes.trace.metadata, "recorded"
    fraction = metadata.memory_fraction.get(lifetimes.device)
    if fraction is None:
        fraction = _fraction_named_in(metadata.alloc_conf or "")
    if fraction is None and memory.total_bytes is not None:
        refusals = refused_with_room(lifetimes)
        fraction = refusals.fraction_of(memory.total_bytes) if refusals.bear_witness_to_a_cap else None
        source = f"inferred from {format_items(refusals.n_requests, 'request')} refused with room"
    if fraction is None or fraction >= 1:
        return memory
    return replace(memory, memory_fraction=fraction, fraction_source=source)


def _fraction_named_in(conf: str) -> float | None:
    """The fraction that settings name, None where they name none that could be."""
    found = _NAMED_FRACTION.search("".join(conf.split()))
    fraction: float | None = None if found is None else float(found.group(1))
    return fraction if fraction is not None and 0 < fraction <= 1 else None


def _recorded_memory(lifetimes: DeviceLifetimes) -> Limits:
    """The recorded device's memory, and what of it is known not to be the allocator's.

    Where a request failed, what was reserved then and what the driver had left are together what the allocator could
    have: the one that ended the recording tells it, or else the first. Where none failed, but several were served only
    after memory was given back, it is the most that was ever reserved.
    """
    metadata = lifetimes.trace.metadata
    total_bytes, left_bytes = metadata.device_total_bytes.get(lifetimes.device), _left_at_failure(lifetimes)
    if total_bytes is None:
        if left_bytes is not None:
            return Limits(left_bytes, 0, source="inferred from the failed request")
        refused = None if len(lifetimes.oom_events) else refused_above(lifetimes)
        if refused is None:
            return Limits(None, 0, source="not known")
        reclaims = format_items(refused.n_reclaims, "reclaim")
        return Limits(refused.granted_bytes, 0, source=f"inferred from {reclaims}")
    if left_bytes is None and not len(lifetimes.oom_events):
        refused = refused_above(lifetimes)
        left_bytes = None if refused is None else refused.granted_bytes
    if left_bytes is not None and left_bytes <= total_bytes:
        return Limits(total_bytes, total_bytes - left_bytes, source="recorded")
    return Limits(total_bytes, metadata.modelled_context_bytes or 0, source="recorded")


DRIVER_SLACK_BYTES = 32 << 20
"""The driver may refuse with this much left: its own tables, 2 MiB pages, memory that came back in between. A cap that
was not recorded is inferred only above it."""
_MIN_WITNESSES = 3
_CAP_WIDTH_FRAC = 0.05


@dataclass(frozen=True, slots=True)
class Refusals:
    """The requests that were refused although the driver had clearly more left than was asked of it.

    Attributes
    ----------
    n_requests
        How many there were.
    granted_bytes, refused_bytes
        The most that was ever reserved, and the least that would have been with one of them; None without any.
    """

    n_requests: int
    granted_bytes: int | None = None
    refused_bytes: int | None = None

    @property
    def bear_witness_to_a_cap(self) -> bool:
        """Whether a cap on what PyTorch may reserve explains them.

        Any other reason would not stop several requests so closely above the most that was ever reserved.
        """
        if self.granted_bytes is None or self.refused_bytes is None or self.n_requests < _MIN_WITNESSES:
            return False
        return self.granted_bytes < self.refused_bytes <= self.granted_bytes * (1 + _CAP_WIDTH_FRAC)

    def fraction_of(self, total_bytes: int) -> float | None:
        """The shortest fraction of a device that allows what was granted and nothing that was refused, None for none.

        People write 0.25 or 0.8 and not what else lies between the two.
        """
        if self.granted_bytes is None or self.refused_bytes is None:
            return None
        for n_digits in range(1, _MAX_DIGITS + 1):
            fraction: float = math.ceil(self.granted_bytes / total_bytes * 10**n_digits) / 10**n_digits
            if self.granted_bytes <= int(fraction * total_bytes) < self.refused_bytes:
                return fraction
        return None


def refused_with_room(lifetimes: DeviceLifetimes) -> Refusals:
    """The requests that were refused with room. Linear in the events and samples."""
    usage, refused = lifetimes.usage, []
    if usage.reserved_bytes is None:
        return Refusals(0)
    for event, free in device_free_at_failures(lifetimes).items():
        # With expandable segments less is asked of the driver, but a cap is checked against this all the same.
        segment = caching.allocation_size(int(lifetimes.trace.size_bytes[event]), caching.LARGE_SEGMENT_BYTES)
        if free >= segment + DRIVER_SLACK_BYTES:
            refused.append(int(usage.reserved_bytes[usage.index_of(event)]) + segment)
    if not refused:
        return Refusals(0)
    return Refusals(len(refused), int(usage.reserved_bytes.max()), min(refused))


def device_free_at_failures(lifetimes: DeviceLifetimes) -> dict[int, int]:
    """What the driver had left at each ``oom`` event for which that was recorded. Linear in the samples."""
    samples = lifetimes.trace.samples
    here = (samples.device == lifetimes.device) & (samples.device_free_bytes >= 0)
    rows = np.flatnonzero(here & np.isin(samples.event, lifetimes.oom_events))
    # Of several before one event the last counts: its own sample stands nearest to it.
    return dict(zip(samples.event[rows].tolist(), samples.device_free_bytes[rows].tolist(), strict=True))


def _left_at_failure(lifetimes: DeviceLifetimes) -> int | None:
    """What PyTorch could have when a request failed: what was reserved and the driver had left; None: not known.

    At least what it had at some time: other programs come and go.
    """
    reserved, free = lifetimes.usage.reserved_bytes, device_free_at_failures(lifetimes)
    if reserved is None or not free:
        return None
    fatal = lifetimes.fatal_oom_event
    event = fatal if fatal in free else min(free)
    return max(int(reserved[lifetimes.usage.index_of(event)]) + free[event], int(reserved.max()))


def available_bytes(lifetimes: DeviceLifetimes) -> int | None:
    """What the recorded device's allocator could reserve at the most, None where that is not known."""
    limits = recorded_limits(lifetimes)
    caps = (limits.left_bytes, limits.cap_bytes(1.0))
    return min((cap for cap in caps if cap is not None), default=None)


def free_at_failure(lifetimes: DeviceLifetimes) -> tuple[int, int] | None:
    """What was not in use of what PyTorch could have when the recording ended in a failure, and that whole.

    None where no failure ended it, or what PyTorch could have is not known.
    """
    event, had_bytes = lifetimes.fatal_oom_event, available_bytes(lifetimes)
    if event is None or had_bytes is None:
        return None
    return max(had_bytes - int(lifetimes.usage.active_bytes[lifetimes.usage.index_of(event)]), 0), had_bytes
