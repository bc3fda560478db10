"""What the fix of a finding returns: how much lower reserved memory peaks in a replay with it."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Any

import numpy as np

from memscope._core import caching
from memscope.device.limits import available_bytes, limits_for
from memscope.errors import UsageError
from memscope.lifetimes.device import DeviceLifetimes
from memscope.replay.caching.engine import replay_caching
from memscope.replay.config import CachingAllocatorConfig, forbidden_options
from memscope.replay.requests import Requests, requests_of
from memscope.trace.tables import Int64Array

MAX_EVENTS = 2_000_000
"""Of longer recordings nothing is replayed unasked: each replay would take seconds."""


class Returned:
    """Replays of a device's requests with something changed; an answer is None where none can be made or trusted.

    Parameters
    ----------
    lifetimes
        The device.
    """

    def __init__(self, lifetimes: DeviceLifetimes) -> None:
        self._lifetimes = lifetimes
        self._limits = limits_for(lifetimes)

    @cached_property
    def peak_bytes(self) -> int | None:
        """The peak of reserved memory in a replay of the requests as they were.

        Where the recording ended in a failure, all that PyTorch could have: it was not enough for the last request.
        """
        if self._lifetimes.n_events > MAX_EVENTS:
            return None
        fatal = self._lifetimes.fatal_oom_event
        if fatal is None:
            return self._peak(None)
        try:
            replayed = replay_caching(self._lifetimes, None, self._limits, keeps_usage=False)
        except UsageError:
            return None
        return available_bytes(self._lifetimes) if replayed.oom is not None and replayed.oom.event == fatal else None

    def without(self, rows: Int64Array) -> int | None:
        """If some allocations had never been made."""
        if self.peak_bytes is None:
            return None
        return self._less(self._peak(_without(requests_of(self._lifetimes), rows)))

    def freed_after(self, rows: Int64Array, events: Int64Array) -> int | None:
        """If some allocations had been freed just after events, one for each of them."""
        if self.peak_bytes is None:
            return None
        return self._less(self._peak(_freed_after(requests_of(self._lifetimes), rows, events)))

    def if_frees_complete(self) -> int | None:
        """If no free had waited for another stream."""
        if self.peak_bytes is None:
            return None
        return self._less(self._peak(requests_of(self._lifetimes).completing_frees()))

    def if_expandable(self) -> int | None:
        """With expandable segments; None where the recording forbids them."""
        if "expandable_segments" in forbidden_options(self._lifetimes.trace):
            return None
        return self._under(is_expandable=True)

    def if_not_rounded(self) -> int | None:
        """Without rounding to parts of powers of two."""
        return self._under(roundup_divisions=CachingAllocatorConfig().roundup_divisions)

    def _under(self, **changed: Any) -> int | None:
        if self.peak_bytes is None:
            return None
        config = CachingAllocatorConfig.from_trace(self._lifetimes.trace, self._lifetimes.device)
        if self._limits.total_bytes is None:
            config = dataclasses.replace(config, memory_fraction=1.0)
        return self._less(self._peak(None, dataclasses.replace(config, **changed)))

    @cached_property
    def _error_bytes(self) -> int:
        """How far the replay is off the recorded peak; what it says of less than that is not said."""
        recorded = self._lifetimes.usage.reserved_bytes
        if self.peak_bytes is None or recorded is None or self._lifetimes.fatal_oom_event is not None:
            return 0
        return abs(self.peak_bytes - int(recorded.max()))

    def _less(self, peak_bytes: int | None) -> int | None:
        if peak_bytes is None or self.peak_bytes is None:
            return None
        less = max(self.peak_bytes - peak_bytes, 0)
        return less if less > self._error_bytes or not self._error_bytes else None

    def _peak(self, requests: Requests | None, config: CachingAllocatorConfig | None = None) -> int | None:
        try:
            replayed = replay_caching(self._lifetimes, config, self._limits, requests=requests, keeps_usage=False)
        except UsageError:
            return None
        return None if replayed.oom is not None else replayed.peak_reserved_bytes


def _without(requests: Requests, rows: Int64Array) -> Requests:
    op = np.array(requests.op)
    op[_is_about(requests, rows)] = caching.Op.NONE
    starts = ~np.isin(requests.start_rows, rows)
    return dataclasses.replace(
        requests, op=op, start_rows=requests.start_rows[starts], start_pending=requests.start_pending[starts]
    )


def _freed_after(requests: Requests, rows: Int64Array, events: Int64Array) -> Requests:
    """The frees of rows moved; what comes after the first of them is then no longer at its event's position."""
    op, row = np.array(requests.op), requests.row
    op[_is_about(requests, rows) & (op != caching.Op.MALLOC)] = caching.Op.NONE
    order = np.argsort(events, kind="stable")
    at = events[order] - requests.first_event + 1
    return dataclasses.replace(
        requests,
        op=np.insert(op, at, caching.Op.FREE),
        row=np.insert(row, at, rows[order]),
        dropped_pool=np.insert(requests.dropped_pool, at, -1),
    )


def _is_about(requests: Requests, rows: Int64Array) -> np.ndarray:
    """Calls that make or free one of the rows: bool (calls,)."""
    acts = (caching.Op.MALLOC, caching.Op.FREE, caching.Op.FREE_LATER, caching.Op.COMPLETE)
    return np.isin(requests.op, acts) & np.isin(requests.row, rows)
