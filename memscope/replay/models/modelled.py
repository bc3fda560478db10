"""Allocators that are models, serving a recording's requests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from memscope._core import caching
from memscope.device.limits import NO_LIMITS, Limits
from memscope.fragmentation.metrics import measure_fragmentation
from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.state import AllocatorState
from memscope.lifetimes.tables import UsageSeries
from memscope.replay.caching.engine import Calls, Served
from memscope.replay.caching.state import state_of
from memscope.replay.models.model import NO_LIMIT, Allocator, Model
from memscope.replay.requests import Requests, requests_of
from memscope.replay.result import ReplayOom, ReplayResult, UnusedBytes
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import Int64Array


def new_allocator(
    model: Model, limits: Limits, streams: Iterable[int], *, is_logged: bool = False, **parameters: int
) -> Allocator:
    """An allocator that holds nothing, with a pair of pools for each stream handle after those of its own.

    A memory fraction is PyTorch's own: other allocators know of none.
    """
    left = limits.left_bytes
    allocator = model.new_allocator(NO_LIMIT if left is None else left, is_logged, **parameters)
    for handle in streams:
        allocator.add_pair(0, handle)
    return allocator


def model_state(allocator: Allocator, stream_ids: Sequence[int], *, device: int, event: int) -> AllocatorState:
    """The address space of a modelled allocator; ``stream_ids`` are those of its streams, in their order."""
    n_own = allocator.n_pairs - len(stream_ids)
    of_pair = np.array([NONE_ID] * n_own + list(stream_ids), np.int32)
    return state_of(allocator, of_pair, np.zeros(len(of_pair), np.int32), device=device, event=event)


class _Run:
    """A model that has served some of a recording's requests.

    Attributes
    ----------
    usage
        As :class:`~memscope.replay.caching.engine.Served` has it.
    peak_moment
        Events until reserved memory is at its peak for the first time.
    failed_row
        The allocation that could not be served, None if all were.
    failed_event
        Where it was asked for; −1 before the first event.
    """

    def __init__(
        self,
        model: Model,
        limits: Limits,
        requests: Requests,
        n_events: int | None,
        parameters: dict[str, int],
        *,
        keeps_peak_only: bool,
    ) -> None:
        handles = [stream for _, stream in requests.pairs]
        self.streams = list(dict.fromkeys(handles))
        self.allocator = new_allocator(model, limits, self.streams, is_logged=False, **parameters)
        n_own = self.allocator.n_pairs - len(self.streams)
        place_of = {handle: n_own + i for i, handle in enumerate(self.streams)}
        of_pair = np.array([place_of[handle] for handle in handles], np.int64)
        self._pair = of_pair[requests.pair] if len(of_pair) else np.empty(0, np.int64)
        self._requests = requests
        self.usage: Int64Array = np.zeros((4, 1), np.int64)
        self.peak_moment = 0
        self.unused: UnusedBytes | None = None
        self.failed_row: int | None = None
        self.failed_event = NONE_ID
        before = Calls.before_the_first_event(requests)
        failed_call = self._serve(before, keeps_peak_only=True).failed_call
        if failed_call is not None:
            self.failed_row = int(before.row[failed_call])
            return
        calls = Calls.of_events(requests, end=None if n_events is None else requests.first_event + n_events)
        served = self._serve(calls, keeps_peak_only)
        self.usage, self.peak_moment, failed_call = served.usage, served.peak_moment, served.failed_call
        self.unused = served.unused if len(calls.op) else None
        if failed_call is not None:
            self.failed_row = int(calls.row[failed_call])
            self.failed_event = requests.first_event + failed_call

    def _serve(self, calls: Calls, keeps_peak_only: bool) -> Served:
        sizes = self._requests.requested_bytes
        return Served.of(self.allocator.serve(*calls, sizes, self._pair, keeps_peak_only))


def replay_modelled(
    lifetimes: DeviceLifetimes,
    model: Model,
    limits: Limits = NO_LIMITS,
    *,
    measures_fragmentation: bool = False,
    keeps_usage: bool = True,
    **parameters: int,
) -> ReplayResult:
    """Serve a device's recorded requests with a modelled allocator.

    Private pools are PyTorch's: here their allocations are served like any other, and emptying one is no act.

    Parameters
    ----------
    limits
        What it can have of the device; no limit if not given.
    measures_fragmentation
        Whether to serve them once more up to the peak, and measure the state there.
    keeps_usage
        Whether the result says what was in use after each event, or only at the peak.
    parameters
        Named parameters of the model.
    """
    requests = requests_of(lifetimes)

    def run(n_events: int | None = None, *, keeps_peak_only: bool) -> _Run:
        return _Run(model, limits, requests, n_events, parameters, keeps_peak_only=keeps_peak_only)

    done = run(keeps_peak_only=not keeps_usage)
    fragmentation = None
    if measures_fragmentation:
        n_events = done.peak_moment
        at_peak = run(n_events, keeps_peak_only=True)
        ids = [_stream_id(lifetimes, handle) for handle in at_peak.streams]
        event = requests.first_event + n_events - 1 if n_events else NONE_ID
        state = model_state(at_peak.allocator, ids, device=lifetimes.device, event=event)
        fragmentation = measure_fragmentation(lifetimes.trace, state)
    stats = done.allocator.stats
    return ReplayResult(
        strategy=model.name,
        device=lifetimes.device,
        conf=None,
        exactness="modelled",
        usage=UsageSeries(requests.first_event + (0 if keeps_usage else done.peak_moment), *done.usage),
        peak_reserved_bytes=stats.peak_reserved_bytes,
        peak_active_bytes=stats.peak_active_bytes,
        n_device_allocs=stats.n_device_allocs,
        n_device_frees=stats.n_device_frees,
        n_retries=stats.n_retries,
        n_ooms=stats.n_ooms,
        oom=_oom(done, requests),
        notes=(*requests.notes, *model.notes),
        driver_calls=model.calls(done.allocator),
        unused=done.unused,
        fragmentation=fragmentation,
    )


def _stream_id(lifetimes: DeviceLifetimes, handle: int) -> int:
    known = np.flatnonzero(lifetimes.trace.stream_handles == handle)
    return int(known[0]) if len(known) else NONE_ID


def _oom(run: _Run, requests: Requests) -> ReplayOom | None:
    if run.failed_row is None:
        return None
    allocator = run.allocator
    blocks, stats = allocator.blocks(), allocator.stats
    free = blocks.size_bytes[blocks.state == caching.BlockState.FREE]
    return ReplayOom(
        event=run.failed_event,
        requested_bytes=int(requests.requested_bytes[run.failed_row]),
        free_bytes=allocator.capacity_bytes - allocator.device_used_bytes,
        reserved_free_bytes=stats.reserved_bytes - stats.active_bytes,
        largest_free_block_bytes=int(free.max(initial=0)),
    )
