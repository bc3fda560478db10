"""The verdict on a device's out-of-memory error, what it rests on in words and numbers, and what weakens it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from memscope.device.device import Device
from memscope.device.to_come import optimizer_state_to_come
from memscope.errors import UsageError
from memscope.oom._causes import Situation, find_cause, refusals_with_room
from memscope.oom._owners import largest_owners
from memscope.oom._remedies import find_remedies
from memscope.oom._request import FailedRequest, failed_request, limit_at, outside_at
from memscope.oom.room import Room, room_at
from memscope.oom.verdict import Cause, Failure, FreeMemory, OomClass, OomVerdict, Remedies
from memscope.replay.config import CachingAllocatorConfig
from memscope.techniques.through import techniques_through
from memscope.trace.categories import Category
from memscope.trace.schema import NONE_ID, Action
from memscope.units import format_alike, format_bytes, format_count, format_fraction, format_handle, format_items

_SHORT_LIVED = (Category.ACTIVATIONS, Category.TEMPORARIES, Category.INPUTS)
_LEAST_HELD_FRAC = 0.02
"""Of active memory: less is not worth a sentence."""
_MAX_NAMED_EVENTS = 5
_ALSO = {
    OomClass.EXTERNAL_FRAGMENTATION: "a second cause: packed perfectly it would have fitted all the same",
    OomClass.STREAM_DELAYED_FREES: "a second cause: frees that waited for other streams would have served it too",
    OomClass.PRIVATE_POOL: "a second cause: free memory across the border of a private pool would have served it too",
    OomClass.NON_PYTORCH: "a second cause: what this process holds outside PyTorch would have been enough too",
}


def judge_oom(device: Device, event: int | None = None, *, searches: bool = True) -> OomVerdict:
    """Say why a device's request failed.

    Parameters
    ----------
    event
        Which ``oom`` event; the one that ended the recording if not given, or else the first.
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
    trust, is_certain = _trust_of(situation, cause)
    return OomVerdict(
        device.index,
        cause,
        events,
        replace(_failure(device, request), limit=limit, outside=outside, free=_free_memory(room)),
        _evidence_of(situation, cause),
        find_remedies(situation, cause.verdict) if may_search else Remedies(),
        trust,
        is_certain,
        techniques_through(device) if may_search and chosen == device.lifetimes.fatal_oom_event else (),
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
    lifetimes = device.lifetimes
    action = lifetimes.trace.action[lifetimes.first_event : lifetimes.end_event]
    if lost != 0 and np.all(action == Action.SNAPSHOT):
        reason = "no allocation was recorded, only what was live at the end: whether a request failed is not known"
        return OomVerdict(device.index, Cause(OomClass.CANNOT_TELL, reason), is_certain=False)
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
        fatal = device.lifetimes.fatal_oom_event
        return int(events[0]) if fatal is None else fatal
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


def _evidence_of(situation: Situation, cause: Cause) -> tuple[str, ...]:
    """Sentences of a verdict, the reason left out: the request, the places it was looked for in, what lay outside."""
    s = situation
    found = [_request_words(s), *_places(s)]
    if cause.verdict is not OomClass.CAPACITY:
        found.append(_packing(s))
    found += refusals_with_room(s)
    found += _held_since_failure(s)
    found += _still_to_make(s, cause)
    found += _undivided_too(s, cause)
    if s.room.pending_rows.size:
        found.append(f"{format_bytes(s.room.pending_bytes)} were freed but still waited for other streams")
    return (*found, *_outside_words(s), *(_ALSO[verdict] for verdict in cause.also if verdict in _ALSO))


def _still_to_make(s: Situation, cause: Cause) -> list[str]:
    """What the optimizer would have asked for next, where the reason does not say it."""
    size = optimizer_state_to_come(s.device, s.request.event)
    if not size or "still to make" in cause.reason:
        return []
    return [f"the optimizer, which makes its state in its first step, had at least {format_bytes(size)} still to make"]


def _undivided_too(s: Situation, cause: Cause) -> list[str]:
    """Memory outside PyTorch that nobody told apart, where pieces of PyTorch's own are said to be the cause."""
    size = s.outside.undivided_bytes
    if cause.verdict is not OomClass.EXTERNAL_FRAGMENTATION or s.outside.is_divided or size is None:
        return []
    if size < s.request.driver_bytes:
        return []
    return [
        f"a second cause: the {format_bytes(size)} held outside PyTorch beyond a context would have been enough too; "
        "by this process or by another was not measured (nvidia-smi)"
    ]


def _held_since_failure(s: Situation) -> list[str]:
    """Short-lived memory that was there when the request before this one failed, and still is."""
    device, event = s.device, s.request.event
    earlier = device.oom_events[device.oom_events < event]
    if not len(earlier):
        return []
    before = int(earlier[-1])
    table, category = device.allocations, device.attribution.category
    held = table.active_at(before) & table.active_at(event) & np.isin(category, _SHORT_LIVED)
    size = int(table.block_bytes[held].sum())
    if not size or size < _LEAST_HELD_FRAC * s.room.state.active_bytes:
        return []
    blocks = format_items(int(np.count_nonzero(held)), "block")
    return [
        f"{format_bytes(size)} of activations, temporaries and inputs ({blocks}) were live when the request at event "
        f"{format_count(before)} failed, and still are: an exception that was caught holds its traceback's tensors "
        "until it is dropped (leave the except block before trying again)"
    ]


def _request_words(s: Situation) -> str:
    request = s.request
    unit = "handles of an expandable segment" if s.config.is_expandable else "a segment"
    stream = "the default stream" if request.stream == 0 else f"stream {format_handle(request.stream)}"
    pool = {None: "a pool that was not recorded", (0, 0): "the default pool"}.get(request.pool, f"pool {request.pool}")
    if request.pool is None and not s.has_private_pools:
        pool = "the default pool"
    asked = format_bytes(request.rounded_bytes)
    return f"{asked} (rounded) were asked for on {stream} from {pool}: {unit} of {format_bytes(request.driver_bytes)}"


def _places(s: Situation) -> list[str]:
    room, limit = s.room, s.limit
    largest = format_bytes(room.largest_own_free_bytes)
    driver = "not recorded" if limit.device_free_bytes is None else format_bytes(limit.device_free_bytes)
    return [
        f"when it failed, the largest free block that it may use was {largest}; what the driver had left: {driver}",
        f"{format_bytes(room.free_bytes)} were free inside reserved memory, "
        f"{format_bytes(room.releasable_bytes)} of it in pieces that could still go back to the driver",
    ]


def _packing(s: Situation) -> str:
    needed, low, high = format_alike(s.room.packed_bytes, s.limit.low_bytes, s.limit.high_bytes)
    could = low if low == high else f"{low} to {high}"
    return f"packed perfectly, all that was in use and the request need {needed}; PyTorch could have {could}"


def _outside_words(s: Situation) -> list[str]:
    outside = s.outside
    found = []
    if outside.total_bytes is None and s.limit.device_free_bytes is not None and not s.limit.refused_by_cap:
        found.append(
            f"the device's size was not recorded: what it has beyond these {format_bytes(s.limit.low_bytes)} was held "
            "outside PyTorch, by this process or by others (nvidia-smi; --capacity tells its size)"
        )
    total, reserved = s.limit.total_bytes, s.room.state.reserved_bytes
    if total is not None and reserved > total:
        found.append(
            f"{format_bytes(reserved)} were reserved on a device of {format_bytes(total)}: what is beyond it lay "
            "elsewhere (on Windows the driver moves memory to the host, and programs slow down)"
        )
        return found
    if outside.total_bytes is not None:
        found.append(f"{format_bytes(outside.total_bytes)} of the device were held outside PyTorch")
    if outside.own_bytes is not None and outside.sample_event is not None:
        grown = ""
        if outside.first_own_bytes is not None and outside.own_bytes > outside.first_own_bytes:
            grown = f" ({format_bytes(outside.own_bytes - outside.first_own_bytes)} more than at first)"
        found.append(f"this process held {format_bytes(outside.own_bytes)} outside PyTorch{grown}")
    if outside.others_bytes:
        found.append(f"other processes held {format_bytes(outside.others_bytes)}")
    if outside.collectives_bytes:
        found.append(f"collectives (NCCL) took {format_bytes(outside.collectives_bytes)}")
    return found


def _trust_of(situation: Situation, cause: Cause) -> tuple[tuple[str, ...], bool]:
    """What weakens a verdict, a sentence each, and whether the cause itself stands in spite of it."""
    s = situation
    weakens = [*_layout_gaps(s), *_limit_gaps(s, cause)]
    notes = _plain_gaps(s)
    return (*weakens, *notes), not weakens and cause.verdict is not OomClass.CANNOT_TELL


def _layout_gaps(s: Situation) -> list[str]:
    found = []
    table, event = s.device.allocations, s.request.event
    inexact = table.active_at(event) & ~table.is_exact
    if np.any(inexact):
        size = format_bytes(int(table.block_bytes[inexact].sum()))
        found.append(
            f"of {int(np.count_nonzero(inexact)):,} live blocks from before the recording ({size}) only a lower bound "
            "is known: free memory may be less than said"
        )
    if s.request.pool_id == NONE_ID and s.has_private_pools:
        found.append("this release does not record which pool a failed request is for: the default pool is assumed")
    if s.config.unmodelled:
        found.append(f"settings that the allocator's rules here do not cover: {', '.join(s.config.unmodelled)}")
    return found


def _limit_gaps(s: Situation, cause: Cause) -> list[str]:
    limit, outside = s.limit, s.outside
    found = []
    if limit.device_free_bytes is None:
        found.append("what the driver had left was not recorded: it is bounded by what was granted and refused")
    if limit.refused_by_cap and not limit.is_cap_recorded:
        found.append("no memory fraction is recorded: the cap is inferred from what was refused with room")
    elif limit.refused_by_cap and limit.cap_bytes is None:
        found.append(
            f"the fraction {limit.memory_fraction:g} is recorded, the device's memory is not: the cap in bytes is "
            "inferred"
        )
    if cause.verdict is OomClass.CAPACITY and not outside.is_divided:
        found.append(
            "who else held memory on the device was not measured: that PyTorch itself is what fills it is not proved"
            if outside.total_bytes is None
            else f"the {format_bytes(outside.total_bytes)} outside PyTorch were not divided by process"
        )
    rests_outside = cause.verdict in (OomClass.NON_PYTORCH, OomClass.OTHER_PROCESS)
    if rests_outside and outside.sample_event is not None and outside.sample_event != s.request.event:
        found.append(f"memory outside PyTorch was sampled after event {outside.sample_event:,}, not at the failure")
    return found


def _plain_gaps(s: Situation) -> list[str]:
    """What is worth knowing but leaves the cause as it is: the state itself does not depend on older events."""
    found = []
    metadata = s.device.trace.metadata
    if metadata.source == "dry-run":
        found.append("a dry run: the device and its limit are modelled, nothing was measured")
    elif metadata.is_emulated:
        found.append("recorded on an emulated device, not on a GPU")
    n_lost = s.device.recording.completeness.n_events_lost
    if n_lost:
        found.append(f"{n_lost:,} events were lost before the first kept one")
    table, event = s.device.allocations, s.request.event
    older = table.active_at(event) & (table.alloc_event == NONE_ID)
    if np.any(older):
        size = int(table.block_bytes[older].sum())
        share = size / max(s.room.state.active_bytes, 1)
        found.append(
            f"{format_bytes(size)} ({format_fraction(share)} of live memory) are older than the recording: "
            "what made them is not known"
        )
    return found
