"""What a replay may take of its device, in one shape from the options of a command to the core."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memscope.errors import UsageError
from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.reclaims import refused_above
from memscope.units import format_bytes, format_items

GIVEN = "given"
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
    source
        How the total is known.
    """

    total_bytes: int | None = None
    reserved_by_others_bytes: int | None = None
    memory_fraction: float | None = None
    source: str = GIVEN

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
    known, source = given, GIVEN
    if given.total_bytes is None:
        known = recorded_limits(lifetimes)
        source = known.source if others is None and fraction is None else f"{known.source}; the rest {GIVEN}"
    return Limits(
        known.total_bytes, (known.reserved_by_others_bytes or 0) if others is None else others, fraction, source
    )


def recorded_limits(lifetimes: DeviceLifetimes) -> Limits:
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
    others_bytes = metadata.extra.get("context_bytes_modelled")
    return Limits(total_bytes, others_bytes if isinstance(others_bytes, int) else 0, source="recorded")


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
    caps = (limits.left_bytes, limits.cap_bytes(lifetimes.trace.metadata.memory_fraction.get(lifetimes.device, 1.0)))
    return min((cap for cap in caps if cap is not None), default=None)


def free_at_failure(lifetimes: DeviceLifetimes) -> tuple[int, int] | None:
    """What was not in use of what PyTorch could have when the recording ended in a failure, and that whole.

    None where no failure ended it, or what PyTorch could have is not known.
    """
    event, had_bytes = lifetimes.fatal_oom_event, available_bytes(lifetimes)
    if event is None or had_bytes is None:
        return None
    return max(had_bytes - int(lifetimes.usage.active_bytes[lifetimes.usage.index_of(event)]), 0), had_bytes
