"""Driving the simulator call by call through a recording: what freeing some blocks really gives back."""

from __future__ import annotations

import pytest

from memscope._core import caching
from memscope.device.limits import recorded_limits
from memscope.lifetimes.device import DeviceLifetimes
from memscope.replay.caching.allocator import CachingAllocator, SimulatedOutOfMemoryError
from memscope.replay.config import CachingAllocatorConfig, recorded_tie_rule
from memscope.replay.requests import requests_of


class Follower:
    """A recording's requests, served again by a simulated allocator, up to an event."""

    def __init__(self, lifetimes: DeviceLifetimes) -> None:
        trace, self.requests = lifetimes.trace, requests_of(lifetimes)
        limits = recorded_limits(lifetimes)
        config = CachingAllocatorConfig.from_trace(trace, lifetimes.device)
        if limits.total_bytes is None:
            # Nothing that a fraction could be of.
            config = CachingAllocatorConfig.parse(config.to_conf())
        self.lifetimes = lifetimes
        self.allocator = CachingAllocator(config, limits, tie_rule=recorded_tie_rule(trace.metadata))
        self.address_of_row: dict[int, int] = {}
        self.position = 0

    def go_to(self, event: int) -> None:
        """Serve everything up to an event, that included."""
        requests = self.requests
        while self.position <= event - requests.first_event:
            op, row = int(requests.op[self.position]), int(requests.row[self.position])
            if op == caching.Op.TRY or row >= len(self.lifetimes.allocations):
                self._try(row)
            elif op == caching.Op.MALLOC:
                pool, stream = requests.pairs[int(requests.pair[row])]
                size = int(requests.requested_bytes[row])
                self.address_of_row[row] = self.allocator.malloc(size, stream, (0, pool))
            elif op in (caching.Op.FREE, caching.Op.FREE_LATER):
                self.allocator.free(self.address_of_row[row], waits=op == caching.Op.FREE_LATER)
            elif op == caching.Op.COMPLETE:
                self.allocator.complete_free(self.address_of_row[row])
            elif op == caching.Op.EMPTY_CACHE:
                self.allocator.empty_cache()
            else:
                assert op == caching.Op.NONE, "a recording that releases pools is not followed here"
            self.position += 1

    def _try(self, row: int) -> None:
        """A request that failed in the recording, and fails again."""
        pool, stream = self.requests.pairs[int(self.requests.pair[row])]
        with pytest.raises(SimulatedOutOfMemoryError):
            self.allocator.malloc(int(self.requests.requested_bytes[row]), stream, (0, pool))

    def reserved_after_emptying(self, rows: tuple[int, ...] = ()) -> int:
        """What stays reserved if some allocations are freed and the cache emptied; the allocator is as before after."""
        again = Follower(self.lifetimes)
        again.go_to(self.position + self.requests.first_event - 1)
        for row in rows:
            again.allocator.free(again.address_of_row[row])
        again.allocator.empty_cache()
        again.allocator.check()
        return again.allocator.stats.reserved_bytes
