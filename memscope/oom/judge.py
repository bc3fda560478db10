"""The verdict on a device's out-of-memory error."""

from __future__ import annotations

import numpy as np

from memscope.device.device import Device
from memscope.errors import UsageError
from memscope.oom.causes import Cause, Situation, find_cause
from memscope.oom.evidence import evidence_of, trust_of
from memscope.oom.outside import outside_at
from memscope.oom.owners import largest_owners
from memscope.oom.remedies import find_remedies
from memscope.oom.request import failed_request, limit_at
from memscope.oom.room import room_at
from memscope.oom.verdict import OomClass, OomVerdict
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
    lifetimes, events = device.lifetimes, device.oom_events
    if not len(events):
        return _without_event(device, event)
    chosen = _chosen(device, event)
    config = CachingAllocatorConfig.from_trace(device.trace, device.index)
    request = failed_request(lifetimes, chosen, config)
    owners = largest_owners(device, chosen)
    usage = device.usage
    index = usage.index_of(chosen)
    if usage.reserved_bytes is None:
        return OomVerdict(
            OomClass.CANNOT_TELL,
            "segments were not recorded, so that free memory is not known",
            device.index,
            chosen,
            tuple(events.tolist()),
            request,
            allocated_bytes=int(usage.allocated_bytes[index]),
            active_bytes=int(usage.active_bytes[index]),
            owners=owners,
            trust=device.recording.completeness.warnings,
            is_certain=False,
        )
    limit = limit_at(lifetimes, request, config)
    room = room_at(lifetimes, request, config)
    reserved = room.state.reserved_bytes
    outside = outside_at(lifetimes, chosen, reserved, limit)
    situation = Situation(device, config, request, limit, room, outside)
    cause = _readable(situation) or find_cause(situation)
    remedies = find_remedies(situation, cause.verdict) if searches and not room.state.unplaced_bytes else None
    trust, is_certain = trust_of(situation, cause)
    return OomVerdict(
        cause.verdict,
        cause.reason,
        device.index,
        chosen,
        tuple(events.tolist()),
        request,
        limit,
        outside,
        allocated_bytes=int(usage.allocated_bytes[index]),
        active_bytes=int(usage.active_bytes[index]),
        reserved_bytes=reserved,
        free_bytes=room.free_bytes,
        fits_block_bytes=room.fits_block,
        largest_free_bytes=room.largest_own_free_bytes,
        pending_bytes=room.pending_bytes,
        private_free_bytes=room.free_bytes - room.usable_free_bytes,
        releasable_bytes=room.releasable_bytes,
        packed_bytes=room.packed_bytes,
        evidence=evidence_of(situation, cause),
        also=cause.also,
        groups=room.groups,
        owners=owners,
        counterfactuals=() if remedies is None else remedies.found,
        not_found=() if remedies is None else remedies.not_found,
        trust=trust,
        is_certain=is_certain,
        replay_error_bytes=None if remedies is None else remedies.replay_error_bytes,
        headline_numbers=dict(cause.numbers),
    )


def _without_event(device: Device, event: int | None) -> OomVerdict:
    if event is not None:
        raise UsageError(f"event {event} is not an out-of-memory error: device {device.index} has none in this trace")
    if not device.n_events:
        reason = "no events were recorded: whether a request failed is not known"
        return OomVerdict(OomClass.CANNOT_TELL, reason, device.index, is_certain=False)
    lost = device.recording.completeness.n_events_lost
    trust = [f"{lost:,} events were lost: a request that failed among them is not seen"] if lost else []
    if lost is None:
        trust.append("whether events are missing cannot be told: a request that failed among them is not seen")
    if CachingAllocatorConfig.from_trace(device.trace, device.index).throws_on_malloc_oom:
        trust.append("throw_on_cudamalloc_oom was set: PyTorch records no event for the requests that it rejects")
    reason = "no request failed in this recording"
    return OomVerdict(OomClass.NO_OOM, reason, device.index, trust=tuple(trust), is_certain=not trust)


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
