"""Is the simulator right about this very recording? Replay it under its own settings and compare everything."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from memscope.errors import UsageError
from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.state import AllocatorState
from memscope.replay.caching.state import state_of
from memscope.replay.config import CachingAllocatorConfig, recorded_tie_rule
from memscope.replay.recording import Recording
from memscope.replay.verify._growth import EXTENTS
from memscope.replay.verify._pinned import follow
from memscope.replay.verify._pools import infer_pools
from memscope.replay.verify._state import PinnedState
from memscope.replay.verify.divergence import Divergence
from memscope.trace.schema import NONE_ID, Action, TieRule
from memscope.trace.tables import BlockTable, SegmentTable
from memscope.trace.trace import Trace
from memscope.units import format_count

_N_PASSES = 8


@dataclass(frozen=True, slots=True)
class DeviceVerification:
    """What came of one device.

    Attributes
    ----------
    exact
        Every event and the final segments and blocks were as recorded, and there was something to compare.
    n_events_compared, n_events
        Events that the replay did as recorded; events there are.
    has_requests
        Whether the program asked for memory or gave some back there: one that it never used has nothing to compare.
    skipped
        What was not compared, a sentence each.
    inferred
        What was concluded from the events because the recording does not say it, and how often.
    first_divergence
        Where replay and recording part, None if they do not.
    not_comparable
        Why nothing could be compared, None if it could.
    recorded_reserved_bytes, replayed_reserved_bytes
        At the end; None where not known.
    recorded_peak_reserved_bytes, replayed_peak_reserved_bytes
        At their highest; None where not known.
    """

    device: int
    exact: bool
    n_events_compared: int
    n_events: int
    has_requests: bool = True
    skipped: tuple[str, ...] = ()
    inferred: dict[str, int] = field(default_factory=dict)
    first_divergence: Divergence | None = None
    not_comparable: str | None = None
    recorded_reserved_bytes: int | None = None
    replayed_reserved_bytes: int | None = None
    recorded_peak_reserved_bytes: int | None = None
    replayed_peak_reserved_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """What came of all devices of a trace."""

    devices: tuple[DeviceVerification, ...]

    @property
    def exact(self) -> bool:
        """Whether every device that was used was exact, and there was one."""
        followed = [device for device in self.devices if device.has_requests]
        return bool(followed) and all(device.exact for device in followed)

    @property
    def n_events_compared(self) -> int:
        """Events that were done as recorded."""
        return sum(device.n_events_compared for device in self.devices)

    @property
    def n_events_skipped(self) -> int:
        """Events that were not compared."""
        return sum(device.n_events - device.n_events_compared for device in self.devices)

    @property
    def first_divergence(self) -> Divergence | None:
        """The first device's first divergence, None if there is none."""
        return next((d.first_divergence for d in self.devices if d.first_divergence is not None), None)


def verify(trace: Trace) -> VerifyResult:
    """Replay a trace under its recorded settings and compare every decision, and the end, with the recording.

    The replay is pinned: segment addresses, the moments of deferred frees and the driver's refusals are fed back.
    Addresses of allocations, misses, segments given back and their order, and the final blocks must then be equal.
    """
    return VerifyResult(tuple(verify_device(DeviceLifetimes(trace, device)) for device in trace.devices))


def verify_device(lifetimes: DeviceLifetimes) -> DeviceVerification:
    """:func:`verify` for one device."""
    trace = lifetimes.trace
    reason = _why_not(lifetimes)
    tie_rule = recorded_tie_rule(trace.metadata)
    config = CachingAllocatorConfig.from_trace(trace, lifetimes.device)
    if reason is None:
        try:
            return _verify(lifetimes, config, tie_rule)
        except UsageError as error:
            reason = str(error)
    return DeviceVerification(
        lifetimes.device,
        exact=False,
        n_events_compared=0,
        n_events=lifetimes.n_events,
        has_requests=_has_requests(lifetimes),
        not_comparable=reason,
    )


def _has_requests(lifetimes: DeviceLifetimes) -> bool:
    action = lifetimes.trace.action[lifetimes.first_event : lifetimes.end_event]
    return bool(np.isin(action, (Action.ALLOC, Action.FREE_REQUESTED, Action.FREE_COMPLETED)).any())


def _why_not(lifetimes: DeviceLifetimes) -> str | None:
    """Why a recording cannot be replayed exactly at all."""
    trace = lifetimes.trace
    action = trace.action[lifetimes.first_event : lifetimes.end_event]
    if not np.any(action == Action.ALLOC) and not np.any(action == Action.FREE_COMPLETED):
        return "no allocation was recorded, so there is nothing to replay"
    if lifetimes.problems:
        return f"the recording contradicts itself: {lifetimes.problems[0].text}"
    if not trace.metadata.has_segment_events:
        return "segment events were not recorded"
    if not np.any(action == Action.FREE_COMPLETED) and np.any(action == Action.FREE_REQUESTED):
        return "completed frees were not recorded, so it is not known when memory was free again"
    if lifetimes.timeline.n_misfits:
        return "segment events were lost: the final segments do not follow from them"
    return None


def _verify(lifetimes: DeviceLifetimes, config: CachingAllocatorConfig, tie_rule: TieRule) -> DeviceVerification:
    """The outcome under the recorded pools, or under the first inferred ones that explain the recording."""
    if lifetimes.trace.metadata.has_pool_ids:
        return _follow(Recording(lifetimes), config, tie_rule, Counter())
    outcomes: list[DeviceVerification] = []
    for pools in infer_pools(lifetimes, config, tie_rule):
        recording = Recording(lifetimes, pool_of_event=pools.of_event, pool_of_start_segment=pools.of_start_segment)
        outcomes.append(_follow(recording, config, tie_rule, pools.inferred))
        if outcomes[-1].exact:
            break
    return _best(outcomes)


def _follow(
    recording: Recording, config: CachingAllocatorConfig, tie_rule: TieRule, inferred: Counter[str]
) -> DeviceVerification:
    """Follow a recording; again from the start while it tells on the way how long address reservations are."""
    reservation_bytes = None
    outcomes: list[DeviceVerification] = []
    for _ in range(_N_PASSES):
        state = PinnedState.before(recording, config, tie_rule, reservation_bytes=reservation_bytes)
        state.inferred.update(inferred)
        outcomes.append(_outcome(state, follow(state)))
        found = state.allocator.reservation_bytes
        if outcomes[-1].exact or not state.inferred[EXTENTS] or found == reservation_bytes:
            break
        reservation_bytes = found
    return _best(outcomes)


def _best(outcomes: list[DeviceVerification]) -> DeviceVerification:
    return max(outcomes, key=lambda outcome: (outcome.exact, outcome.n_events_compared))


def _outcome(state: PinnedState, divergence: Divergence | None) -> DeviceVerification:
    recording = state.recording
    trace, lifetimes = recording.trace, recording.lifetimes
    recorded = lifetimes.recorded_final_state()
    compares_end = trace.metadata.block_layout_recorded
    if divergence is None and compares_end:
        divergence = _final_divergence(state, recorded)
    skipped = []
    if state.position < recording.n_events:
        n_left = recording.n_events - state.position
        skipped.append(f"{format_count(n_left)} events from the first that could not be followed on")
    if not np.any(recording.action == Action.ALLOC):
        skipped.append("which blocks are chosen: no allocation was recorded")
    if not compares_end:
        skipped.append("the final segments and blocks, which are not part of the source")
    not_comparable = None
    if divergence is not None and _may_lack_segment_events(lifetimes):
        not_comparable = "segment events were left out of the recording: segments are there that no event made"
    usage = lifetimes.usage
    stats = state.allocator.stats
    return DeviceVerification(
        device=lifetimes.device,
        exact=divergence is None,
        not_comparable=not_comparable,
        n_events_compared=state.position,
        n_events=recording.n_events,
        skipped=tuple(skipped),
        inferred={what: n for what, n in state.inferred.items() if n},
        first_divergence=divergence if not_comparable is None else None,
        recorded_reserved_bytes=recorded.reserved_bytes if compares_end else None,
        replayed_reserved_bytes=stats.reserved_bytes,
        recorded_peak_reserved_bytes=None if usage.reserved_bytes is None else int(usage.reserved_bytes.max()),
        replayed_peak_reserved_bytes=stats.peak_reserved_bytes,
    )


def _may_lack_segment_events(lifetimes: DeviceLifetimes) -> bool:
    """Whether memory was reserved without an event, and without anything in use that would explain it."""
    reserved_before = lifetimes.timeline.start_bytes > 0 and lifetimes.preexisting_bytes == 0
    return reserved_before and not len(lifetimes.timeline.event)


def _final_divergence(state: PinnedState, recorded: AllocatorState) -> Divergence | None:
    recording = state.recording
    id_of = {handle: stream_id for stream_id, handle in enumerate(recording.trace.stream_handles.tolist())}
    stream_ids = np.array([id_of[stream] for _, stream in recording.pairs], np.int32)
    pool_ids = np.array([pool for pool, _ in recording.pairs], np.int32)
    got = state_of(state.allocator, stream_ids, pool_ids, device=recorded.device)
    names = ("size_bytes", "stream_id", "pool_id", "is_large", "is_expandable")
    found = _difference(recording.trace, "segment", got.segments, recorded.segments, names)
    of_blocks = ("size_bytes", "state", "requested_bytes")
    return found or _difference(recording.trace, "block", got.blocks, recorded.blocks, of_blocks)


def _difference(
    trace: Trace, what: str, got: SegmentTable | BlockTable, recorded: SegmentTable | BlockTable, names: tuple[str, ...]
) -> Divergence | None:
    if not np.array_equal(got.address, recorded.address):
        only = np.setxor1d(got.address, recorded.address)
        reason = f"the final {what}s differ first at {trace.address_text(int(only[0]))}"
        counts = [f"{format_count(len(table))} {what}s" for table in (recorded, got)]
        return Divergence(NONE_ID, counts[0], counts[1], reason)
    for name in names:
        mine, theirs = getattr(got, name), getattr(recorded, name)
        differs = np.flatnonzero(mine != theirs)
        if len(differs):
            first = differs[0]
            reason = f"the final {what} at {trace.address_text(int(recorded.address[first]))} differs in {name}"
            return Divergence(NONE_ID, str(theirs[first]), str(mine[first]), reason)
    return None
