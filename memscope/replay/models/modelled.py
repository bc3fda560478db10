"""Allocators that are models: one policy each, driven call by call or by a recording's requests."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from memscope._kernels import caching_layout as at
from memscope._kernels import caching_replay, policies, policy_blocks, policy_replay
from memscope.device.limits import NO_LIMITS, Limits
from memscope.fragmentation.metrics import measure_fragmentation
from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.state import AllocatorState
from memscope.lifetimes.tables import UsageSeries
from memscope.replay.caching.arrays import grow, new_arrays, state_of, with_lanes
from memscope.replay.config import CachingAllocatorConfig
from memscope.replay.models.model import Model, Policy
from memscope.replay.requests import Requests, requests_of
from memscope.replay.result import ReplayOom, ReplayResult
from memscope.trace.schema import NONE_ID, TieRule
from memscope.trace.tables import Int64Array


def empty_arrays(limits: Limits, *, is_logged: bool) -> at.CachingArrays:
    """Arrays of a modelled allocator that holds nothing, and has no lanes yet."""
    # A memory fraction is PyTorch's own: other allocators know of none.
    limits = dataclasses.replace(limits, memory_fraction=None)
    return new_arrays(CachingAllocatorConfig(), limits, tie_rule=TieRule.ADDRESS, is_logged=is_logged)


def with_streams(arrays: at.CachingArrays, model: Model, streams: Sequence[int]) -> at.CachingArrays:
    """The arrays with lanes for the model itself and for each stream handle."""
    pairs = [(0, NONE_ID)] * model.n_extra_pairs + [(0, handle) for handle in streams]
    return with_lanes(arrays, pairs, is_private_releasable=False)


def model_state(
    arrays: at.CachingArrays, model: Model, stream_ids: Sequence[int], *, device: int, event: int
) -> AllocatorState:
    """The address space of a modelled allocator; ``stream_ids`` are those of its streams, in their order."""
    of_pair = np.array([NONE_ID] * model.n_extra_pairs + list(stream_ids), np.int32)
    return state_of(arrays, of_pair, np.zeros(len(of_pair), np.int32), device=device, event=event)


class _Run:
    """A model that has served some of a recording's requests.

    Attributes
    ----------
    usage
        int64 (4, n + 1): by :mod:`memscope._kernels.caching_replay`.
    n_done
        Events that it covers.
    failed_row
        The allocation that could not be served, −1 if all were.
    """

    def __init__(
        self,
        model: Model,
        policy: Policy,
        requests: Requests,
        arrays: at.CachingArrays,
        *,
        n_events: int | None = None,
    ) -> None:
        handles = [stream for _, stream in requests.pairs]
        self.streams = list(dict.fromkeys(handles))
        self.model, self.policy, self.requests = model, policy, requests
        self.arrays = with_streams(arrays, model, self.streams)
        of_pair = np.array([self.streams.index(handle) + model.n_extra_pairs for handle in handles], np.int64)
        self.pair: Int64Array = of_pair[requests.pair] if len(of_pair) else np.empty(0, np.int64)
        self.op = requests.op[:n_events].astype(np.int64)
        self.usage: Int64Array = np.zeros((caching_replay.N_USAGE, len(self.op) + 1), np.int64)
        self.block_of_row = np.full(len(requests.requested_bytes), NONE_ID, np.int64)
        self.sync_of_row = np.zeros(len(requests.requested_bytes), np.int64)
        self.n_done = 0
        self.failed_row = self._serve_start()
        if self.failed_row == NONE_ID:
            self.failed_row = self._serve_events()

    def _serve_start(self) -> int:
        requests = self.requests
        for row, waits in zip(requests.start_rows.tolist(), requests.start_pending.tolist(), strict=True):
            block = at.STATUS_GROW
            while block == at.STATUS_GROW:
                self._room()
                block = int(policies.malloc(self.policy, self.arrays, self.pair[row], requests.requested_bytes[row]))
                if block == at.STATUS_GROW:
                    self._grow()
            if block == at.STATUS_OOM:
                return int(row)
            self.block_of_row[row] = block
            if waits:
                policy_blocks.request_free(self.policy, self.arrays, block, True)
                self.sync_of_row[row] = self.arrays.counters[at.C_N_SYNCS]
        for column, counter in enumerate((at.C_ALLOCATED, at.C_ACTIVE, at.C_REQUESTED, at.C_RESERVED)):
            self.usage[column, 0] = self.arrays.counters[counter]
        return NONE_ID

    def _serve_events(self) -> int:
        requests, status = self.requests, at.STATUS_GROW
        while status == at.STATUS_GROW:
            position, status = policy_replay.replay_policy(
                self.policy,
                self.arrays,
                self.op,
                requests.row,
                requests.requested_bytes,
                self.pair,
                self.block_of_row,
                self.sync_of_row,
                self.usage,
                self.n_done,
            )
            self.n_done = int(position)
            if status == at.STATUS_GROW:
                self._grow()
        return int(requests.row[self.n_done]) if status == at.STATUS_OOM else NONE_ID

    def _room(self) -> None:
        if not at.has_room(self.arrays):
            self._grow()

    def _grow(self) -> None:
        self.arrays = grow(self.arrays)
        self.policy = self.model.grow_policy(self.policy)


def replay_modelled(
    lifetimes: DeviceLifetimes,
    model: Model,
    limits: Limits = NO_LIMITS,
    *,
    measures_fragmentation: bool = False,
    **parameters: int,
) -> ReplayResult:
    """Serve a device's recorded requests with a modelled allocator.

    Parameters
    ----------
    limits
        What it can have of the device; no limit if not given.
    measures_fragmentation
        Whether to serve them once more up to the peak, and measure the state there.
    parameters
        Named parameters of the model's policy.
    """
    requests = requests_of(lifetimes)

    def run(n_events: int | None = None) -> _Run:
        arrays = empty_arrays(limits, is_logged=False)
        return _Run(model, model.new_policy(**parameters), requests, arrays, n_events=n_events)

    done = run()
    oom = None if done.failed_row == NONE_ID else _oom(done)
    n_moments = done.n_done + (1 if oom is None or oom.event == NONE_ID else 2)
    allocated, active, requested, reserved = done.usage[:, :n_moments]
    fragmentation = None
    if measures_fragmentation:
        at_peak = run(int(np.argmax(reserved)))
        ids = [_stream_id(lifetimes, handle) for handle in at_peak.streams]
        event = requests.first_event + at_peak.n_done - 1 if at_peak.n_done else NONE_ID
        state = model_state(at_peak.arrays, model, ids, device=lifetimes.device, event=event)
        fragmentation = measure_fragmentation(lifetimes.trace, state)
    counters = done.arrays.counters
    return ReplayResult(
        strategy=model.name,
        device=lifetimes.device,
        conf=None,
        exactness="modelled",
        usage=UsageSeries(requests.first_event, allocated, active, requested, reserved),
        peak_reserved_bytes=int(counters[at.C_PEAK_RESERVED]),
        peak_active_bytes=int(counters[at.C_PEAK_ACTIVE]),
        n_device_allocs=int(counters[at.C_N_DEVICE_ALLOCS]),
        n_device_frees=int(counters[at.C_N_DEVICE_FREES]),
        n_retries=int(counters[at.C_N_RETRIES]),
        oom=oom,
        notes=(*requests.notes, *model.notes),
        driver_calls=model.calls(done.policy, counters),
        fragmentation=fragmentation,
    )


def _stream_id(lifetimes: DeviceLifetimes, handle: int) -> int:
    known = np.flatnonzero(lifetimes.trace.stream_handles == handle)
    return int(known[0]) if len(known) else NONE_ID


def _oom(run: _Run) -> ReplayOom:
    arrays, requests = run.arrays, run.requests
    is_at_start = run.n_done == 0 and not np.any(requests.row == run.failed_row)
    free = arrays.blocks[arrays.blocks[:, at.B_STATE] == at.FREE, at.B_SIZE]
    return ReplayOom(
        event=NONE_ID if is_at_start else requests.first_event + run.n_done,
        requested_bytes=int(requests.requested_bytes[run.failed_row]),
        free_bytes=int(arrays.config[at.CFG_CAPACITY] - arrays.counters[at.C_DEVICE_USED]),
        reserved_free_bytes=int(arrays.counters[at.C_RESERVED] - arrays.counters[at.C_ACTIVE]),
        largest_free_block_bytes=int(free.max(initial=0)),
    )
