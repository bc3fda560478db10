"""The verdict on a device's out-of-memory error."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from memscope.device.device import Device
from memscope.errors import UsageError
from memscope.oom.causes import Situation, find_cause
from memscope.oom.evidence import evidence_of, trust_of
from memscope.oom.outside import outside_at
from memscope.oom.owners import largest_owners
from memscope.oom.remedies import find_remedies
from memscope.oom.request import FailedRequest, failed_request, limit_at
from memscope.oom.room import Room, room_at
from memscope.oom.verdict import Cause, Failure, FreeMemory, OomClass, OomVerdict, Remedies
from memscope.replay.config import CachingAllocatorConfig
from memscope.units import format_bytes

_MAX_NAMED_EVENTS = 5


def judge_oom(device: Device, event: int | None = None, *, searches: bool = True) -> OomVerdict:
    """Say why a device's request failed.

    Parameters
    ----------
    event
        Which ``oom`` event; the first if not given.
    searches
        Whether to search changes that would have helped: some dozens of replays.

    Raises
    ------
    UsageError
        If the event is not an ``oom`` event of this device.
    """
    events = tuple(device.oom_events.tolist())
    if not events:
        return _without_event(device, event)
    chosen = _chosen(device, event)
    config = CachingAllocatorConfig.from_trace(device.trace, device.index)
    request = failed_request(device.lifetimes, chosen, config)
    if device.usage.reserved_bytes is None:
        cause = Cause(OomClass.CANNOT_TELL, "segments were not recorded, so that free memory is not known")
        trust = device.recording.completeness.warnings
        return OomVerdict(device.index, cause, events, _failure(device, request), trust=trust, is_certain=False)
    limit = limit_at(device.lifetimes, request, config)
    room = room_at(device.lifetimes, request, config)
    outside = outside_at(device.lifetimes, chosen, room.state.reserved_bytes, limit)
    situation = Situation(device, config, request, limit, room, outside)
    cause = _readable(situation) or find_cause(situation)
    may_search = searches and not room.state.unplaced_bytes
    trust, is_certain = trust_of(situation, cause)
    return OomVerdict(
        device.index,
        cause,
        events,
        replace(_failure(device, request), limit=limit, outside=outside, free=_free_memory(room)),
        evidence_of(situation, cause),
        find_remedies(situation, cause.verdict) if may_search else Remedies(),
        trust,
        is_certain,
    )


def _failure(device: Device, request: FailedRequest) -> Failure:
    """What is known of a failure whether segments were recorded or not."""
    index = device.usage.index_of(request.event)
    return Failure(
        request,
        int(device.usage.allocated_bytes[index]),
        int(device.usage.active_bytes[index]),
        largest_owners(device, request.event),
    )


def _free_memory(room: Room) -> FreeMemory:
    return FreeMemory(
        reserved_bytes=room.state.reserved_bytes,
        free_bytes=room.free_bytes,
        fits_block_bytes=room.fits_block,
        largest_bytes=room.largest_own_free_bytes,
        pending_bytes=room.pending_bytes,
        private_bytes=room.free_bytes - room.usable_free_bytes,
        releasable_bytes=room.releasable_bytes,
        packed_bytes=room.packed_bytes,
        groups=room.groups,
    )


def _without_event(device: Device, event: int | None) -> OomVerdict:
    if event is not None:
        raise UsageError(f"event {event} is not an out-of-memory error: device {device.index} has none in this trace")
    if not device.n_events:
        reason = "no events were recorded: whether a request failed is not known"
        return OomVerdict(device.index, Cause(OomClass.CANNOT_TELL, reason), is_certain=False)
    lost = device.recording.completeness.n_events_lost
    trust = [f"{lost:,} events were lost: a request that failed among them is not seen"] if lost else []
    if lost is None:
        trust.append("whether events are missing cannot be told: a request that failed among them is not seen")
    if CachingAllocatorConfig.from_trace(device.trace, device.index).throws_on_malloc_oom:
        trust.append("throw_on_cudamalloc_oom was set: PyTorch records no event for the requests that it rejects")
    cause = Cause(OomClass.NO_OOM, "no request failed in this recording")
    return OomVerdict(device.index, cause, trust=tuple(trust), is_certain=not trust)


def _chosen(device: Device, event: int | None) -> int:
    events = device.oom_events
    if event is None:
        return int(events[0])
    if not np.any(events == event):
        named = ", ".join(f"{position}" for position in events[:_MAX_NAMED_EVENTS].tolist())
        more = f" and {len(events) - _MAX_NAMED_EVENTS:,} more" if len(events) > _MAX_NAMED_EVENTS else ""
        raise UsageError(
            f"event {event} is not an out-of-memory error of device {device.index}: its errors are at {named}{more}"
        )
    return event


def _readable(situation: Situation) -> Cause | None:
    """A state that does not hold together, or in which PyTorch would have served the request, supports no cause."""
    room, request = situation.room, situation.request
    if room.state.unplaced_bytes:
        lost = format_bytes(room.state.unplaced_bytes)
        return Cause(OomClass.CANNOT_TELL, f"{lost} of live blocks lie in no recorded segment")
    if room.fits_block and not len(room.late_rows):
        return Cause(
            OomClass.CANNOT_TELL,
            f"by PyTorch's rules a free block of {format_bytes(room.fits_block)} would have served it: the recorded "
            "layout or settings are not those in force",
        )
    may_be_private = request.pool_id > 0 or (request.pool_id < 0 and situation.has_private_pools)
    left = room.releasable_bytes
    if left >= request.driver_bytes and not may_be_private and not len(room.pending_rows):
        return Cause(
            OomClass.CANNOT_TELL,
            f"{format_bytes(left)} could still be given back to the driver, which PyTorch does before it gives up: "
            "the recorded layout is not the one in force",
        )
    return None
