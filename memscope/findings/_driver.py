"""Calls of the driver that a warmed-up program should not need: reclaims, emptied caches, segments taken anew."""

from __future__ import annotations

import numpy as np

from memscope.device.device import Device
from memscope.device.limits import available_bytes
from memscope.findings.finding import Finding, Severity
from memscope.findings.returned import Returned
from memscope.replay.requests import Reclaims, find_reclaims
from memscope.replay.result import DriverCalls
from memscope.trace.schema import NONE_ID, Action
from memscope.trace.tables import BoolArray
from memscope.units import format_alike, format_bytes, format_count, format_duration

SEVERE_RETRIES = 10
"""A reclaim waits for the whole device and gives back what the next request takes again: ten are no accident."""
MIN_EMPTYINGS = 5
"""A program may empty the cache between phases; this often it is part of its loop."""
MIN_RETAKEN_FRAC = 0.5
"""Emptying the cache was in vain if at least this share of what it gave back was taken again."""
MIN_STORM_CALLS = 20
MIN_STORM_FRAC = 0.01
"""Share of the allocations in the second half that led to a call of the driver; warmed up, next to none should."""
FULL_OF_USE_FRAC = 0.9
"""A device is nearly full where this share of what PyTorch could have is in use, and not only cached."""


def find_driver_calls(device: Device, _returned: Returned) -> list[Finding]:
    """Reclaims, emptied caches, and driver calls that go on once the program is warm."""
    if device.fragmentation_series is None or not len(device.lifetimes.timeline.event):
        return []
    reclaims = find_reclaims(device.lifetimes)
    return [look for find in (_retries, _either, _emptyings) for look in find(device, reclaims)] + _storm(device)


def _retries(device: Device, reclaims: Reclaims) -> list[Finding]:
    chosen = reclaims.is_retry & ~reclaims.is_doubtful & ~reclaims.is_garbage
    n, given = int(np.count_nonzero(chosen)), int(reclaims.given_bytes[chosen].sum())
    if not n:
        return []
    n_failed = int(np.count_nonzero(chosen & reclaims.has_failed))
    return [
        Finding(
            kind="retries",
            severity=Severity.SEVERE if n >= SEVERE_RETRIES else Severity.WARNING,
            device=device.index,
            title=f"Cached memory was given back {_times(n)} {_purpose(n, n_failed)}: {format_bytes(given)}",
            text=(
                f"{_who_refused(device)}, so the allocator waited for the device and released its cache; "
                f"each time is a stall.{_cost_words(device, reclaims, chosen)}{_use_words(device, reclaims, chosen)}"
            ),
            bytes=given,
            event=int(reclaims.start[np.flatnonzero(chosen)[0]]),
            view="timeline",
            evidence={"n_retries": n, "n_failed": n_failed, **_cost(device, reclaims, chosen)},
            fix="less memory at the peak, or less fragmentation (memscope tune)",
        )
    ]


def _who_refused(device: Device) -> str:
    """What made the allocator give its cache back: the driver, or a cap on its own share."""
    fraction = device.limits.memory_fraction
    cap = device.limits.cap_bytes(1.0)
    if cap is None or fraction is None:
        return "The driver had too little left"
    return f"PyTorch had all that its fraction of {fraction:g} lets it reserve ({format_bytes(cap)})"


def _purpose(n: int, n_failed: int) -> str:
    """What a number of reclaims was for, and whether that was served."""
    if not n_failed:
        return "to serve a request"
    if n_failed == n:
        return (
            "for a request that was refused all the same" if n == 1 else "for requests that were refused all the same"
        )
    return f"to serve requests, {format_count(n_failed)} of which were refused all the same"


def _use_words(device: Device, reclaims: Reclaims, chosen: BoolArray) -> str:
    """Whether the device was full of what was in use, with what each reclaim was for, or only of what was cached."""
    available = available_bytes(device.lifetimes)
    if available is None:
        return ""
    made = np.sort(device.allocations.alloc_event)
    served = made[np.minimum(np.searchsorted(made, reclaims.start[chosen]), len(made) - 1)]
    active = max(int(device.usage.active_bytes[device.usage.index_of(event)]) for event in served.tolist())
    if active >= FULL_OF_USE_FRAC * available:
        return " The device is nearly full." if device.limits.memory_fraction is None else ""
    used, had = format_alike(active, available)
    return (
        f" At most {used} of the {had} that PyTorch could have were in use then: "
        "what was cached did not fit what was asked for."
    )


def _either(device: Device, reclaims: Reclaims) -> list[Finding]:
    """Memory given back just before more was taken: by the allocator or by the program, which cannot be told."""
    chosen = reclaims.is_doubtful
    n, given = int(np.count_nonzero(chosen)), int(reclaims.given_bytes[chosen].sum())
    if n < MIN_EMPTYINGS:
        return []
    return [
        Finding(
            kind="cache-given-back",
            severity=Severity.WARNING,
            device=device.index,
            title=f"Cached memory was given back {_times(n)} just before more was taken: {format_bytes(given)}",
            text=(
                "Either the driver had too little left for a request, or the program called empty_cache(): the "
                f"recording does not tell which.{_cost_words(device, reclaims, chosen)}"
            ),
            bytes=given,
            event=int(reclaims.start[np.flatnonzero(chosen)[0]]),
            view="timeline",
            evidence={"n_reclaims": n, **_cost(device, reclaims, chosen)},
        )
    ]


def _emptyings(device: Device, reclaims: Reclaims) -> list[Finding]:
    chosen = ~reclaims.is_retry
    n = int(np.count_nonzero(chosen))
    given = int(reclaims.given_bytes[chosen].sum())
    if n < MIN_EMPTYINGS:
        return []
    timeline = device.lifetimes.timeline
    first = int(reclaims.start[np.flatnonzero(chosen)[0]])
    takes = np.isin(timeline.action, (Action.SEGMENT_ALLOC, Action.SEGMENT_MAP)) & (timeline.event > first)
    retaken = int(timeline.size_bytes[takes].sum())
    if retaken < MIN_RETAKEN_FRAC * given:
        return []
    return [
        Finding(
            kind="cache-emptied",
            severity=Severity.WARNING,
            device=device.index,
            title=f"empty_cache() {_times(n)}: {format_bytes(given)} given back, {format_bytes(retaken)} taken since",
            text=(
                f"What is given back is asked of the driver again soon after.{_cost_words(device, reclaims, chosen)}"
            ),
            bytes=given,
            event=first,
            view="timeline",
            evidence={
                "n_calls": n,
                "taken_since_bytes": retaken,
                **_cost(device, reclaims, chosen),
            },
            fix="call it only before another process needs the memory",
        )
    ]


def _storm(device: Device) -> list[Finding]:
    lifetimes, timeline = device.lifetimes, device.lifetimes.timeline
    middle = lifetimes.first_event + lifetimes.n_events // 2
    late = timeline.event >= middle
    takes = late & np.isin(timeline.action, (Action.SEGMENT_ALLOC, Action.SEGMENT_MAP))
    gives = late & ~takes
    n_allocs = int(np.count_nonzero(lifetimes.allocations.alloc_event >= middle))
    n_takes, n_gives = int(np.count_nonzero(takes)), int(np.count_nonzero(gives))
    if n_takes < max(MIN_STORM_CALLS, MIN_STORM_FRAC * n_allocs) or not n_gives:
        return []
    size = int(timeline.size_bytes[takes].sum())
    counts = DriverCalls({"cudaMalloc": n_takes, "cudaFree": n_gives})
    return [
        Finding(
            kind="driver-calls",
            severity=Severity.WARNING,
            device=device.index,
            title=f"{format_count(n_takes)} segments taken from the driver in the second half: {format_bytes(size)}",
            text=(
                f"{format_count(n_gives)} went back meanwhile. A warm program serves its requests from the cache; "
                f"these calls take about {format_duration(counts.modelled_cost_ns)} of host time (modelled)."
            ),
            bytes=size,
            event=int(timeline.event[np.flatnonzero(takes)[0]]),
            view="timeline",
            evidence={
                "n_taken": n_takes,
                "n_given_back": n_gives,
                "n_allocs": n_allocs,
                "modelled_ns": counts.modelled_cost_ns,
            },
        )
    ]


def _times(n: int) -> str:
    return "once" if n == 1 else f"{format_count(n)} times"


def _cost(device: Device, reclaims: Reclaims, chosen: BoolArray) -> dict[str, int | None]:
    return {
        "given_back_bytes": int(reclaims.given_bytes[chosen].sum()),
        "recorded_ns": _recorded_ns(device, reclaims, chosen),
        "modelled_ns": _modelled_ns(device, reclaims, chosen),
    }


def _cost_words(device: Device, reclaims: Reclaims, chosen: BoolArray) -> str:
    recorded = _recorded_ns(device, reclaims, chosen)
    if recorded is not None:
        return f" The calls themselves took {format_duration(recorded)} (recorded)."
    return f" The calls themselves take about {format_duration(_modelled_ns(device, reclaims, chosen))} (modelled)."


def _recorded_ns(device: Device, reclaims: Reclaims, chosen: BoolArray) -> int | None:
    """Time of each reclaim from its first event to its last, or to the event that took memory after it.

    A lower bound: the first call was under way before its event. None where times are not a device's or too coarse.
    """
    lifetimes, trace = device.lifetimes, device.trace
    last = np.minimum(reclaims.end - (~reclaims.is_retry).astype(np.int64), lifetimes.last_event)
    begin, end = trace.time_ns[reclaims.start[chosen]], trace.time_ns[last[chosen]]
    if not device.recording.has_device_times or np.any(begin == NONE_ID) or np.any(end == NONE_ID):
        return None
    return int(np.maximum(end - begin, 0).sum()) or None


def _modelled_ns(device: Device, reclaims: Reclaims, chosen: BoolArray) -> int:
    """Host time of the calls that give segments back, by the table of ``replay.driver_calls``."""
    action = device.trace.action
    n_frees = n_unmaps = 0
    for start, end in zip(reclaims.start[chosen].tolist(), reclaims.end[chosen].tolist(), strict=True):
        n_frees += int(np.count_nonzero(action[start:end] == Action.SEGMENT_FREE))
        n_unmaps += int(np.count_nonzero(action[start:end] == Action.SEGMENT_UNMAP))
    n_reclaims = int(np.count_nonzero(chosen))
    counts = {
        "cudaFree": n_frees,
        "cuMemUnmap": n_unmaps,
        "cuMemRelease": n_unmaps,
        "cudaDeviceSynchronize": n_reclaims,
    }
    return DriverCalls(counts).modelled_cost_ns
