"""PyTorch's caching allocator, simulated call by call."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from memscope._core import caching
from memscope.device.limits import NO_LIMITS, Limits
from memscope.errors import UsageError
from memscope.lifetimes.state import AllocatorState
from memscope.replay.caching._invariants import check_allocator
from memscope.replay.caching.settings import AddressRule, new_allocator
from memscope.replay.caching.state import state_of
from memscope.replay.config import DEFAULT_TIE_RULE, CachingAllocatorConfig
from memscope.trace.schema import Action, TieRule

_ACTIONS = {int(action): action for action in Action}
DEFAULT_POOL = (0, 0)
"""Id of the pool that every request comes from which names no other."""


class SimulatedEvent(NamedTuple):
    """One thing a simulated allocator did, in the words and sizes of PyTorch's own history."""

    action: Action
    address: int
    size_bytes: int
    stream: int
    pool: tuple[int, int]


class SimulatedOutOfMemoryError(Exception):
    """A simulated request failed; not an error of memscope's use, but the simulated program's fate.

    Attributes
    ----------
    requested_bytes, rounded_bytes
        What was asked for, and what the allocator made of it.
    free_bytes
        What the device still had at that moment, after every reclaim.
    """

    def __init__(self, requested_bytes: int, rounded_bytes: int, free_bytes: int) -> None:
        super().__init__(
            f"simulated out of memory: {requested_bytes:,} bytes requested, {free_bytes:,} bytes free on the device"
        )
        self.requested_bytes = requested_bytes
        self.rounded_bytes = rounded_bytes
        self.free_bytes = free_bytes


class CachingAllocator:
    """One device's caching allocator; every decision is the one that PyTorch makes.

    Parameters
    ----------
    config
        Settings; PyTorch's defaults if not given.
    limits
        What it can have of the device; no limit if not given.
    tie_rule
        Which of several equally good blocks is taken; it tells the PyTorch release that is simulated.
    address_rule
        Where segments are placed.

    Raises
    ------
    UsageError
        If the settings are not covered by the simulator.
    """

    def __init__(
        self,
        config: CachingAllocatorConfig | None = None,
        limits: Limits = NO_LIMITS,
        *,
        tie_rule: TieRule = DEFAULT_TIE_RULE,
        address_rule: AddressRule | None = None,
        device: int = 0,
    ) -> None:
        self.config = CachingAllocatorConfig() if config is None else config
        self.device = device
        self._allocator = new_allocator(
            self.config, limits, tie_rule=tie_rule, address_rule=address_rule, is_logged=True
        )
        self._pools: dict[tuple[int, int], int] = {DEFAULT_POOL: 0}
        self._streams: dict[int, int] = {0: 0}
        self._pairs: dict[tuple[int, int], int] = {}
        self._block_at: dict[int, caching.Block] = {}
        self._released: set[tuple[int, int]] = set()
        self._places: list[tuple[int, tuple[int, int]]] = []
        self._pair(0, DEFAULT_POOL)

    @property
    def stream_handles(self) -> tuple[int, ...]:
        """Raw stream handles by the stream ids that :meth:`state` uses."""
        return tuple(self._streams)

    @property
    def pools(self) -> tuple[tuple[int, int], ...]:
        """Pool ids by the dense ids that :meth:`state` uses."""
        return tuple(self._pools)

    def _pair(self, stream: int, pool: tuple[int, int]) -> int:
        key = (self._pools.setdefault(pool, len(self._pools)), stream)
        pair = self._pairs.get(key)
        if pair is None:
            self._streams.setdefault(stream, len(self._streams))
            pair = self._pairs[key] = len(self._pairs)
            self._allocator.add_pair(key[0], stream, pool in self._released)
        return pair

    def malloc(self, requested_bytes: int, stream: int = 0, pool: tuple[int, int] = DEFAULT_POOL) -> int:
        """Serve a request and return its address; 0 for a request of no bytes, which leaves no event.

        Raises
        ------
        SimulatedOutOfMemoryError
            If it cannot be served; the reclaim and the ``oom`` are among the events then.
        UsageError
            If the size is negative.
        """
        if requested_bytes <= 0:
            if requested_bytes < 0:
                raise UsageError(f"a request of {requested_bytes} bytes cannot be served")
            return 0
        pair = self._pair(stream, pool)
        block = self._allocator.malloc(pair, requested_bytes)
        if block is None:
            raise self._out_of_memory(requested_bytes)
        self._block_at[block.address] = block
        return block.address

    def _out_of_memory(self, requested_bytes: int) -> SimulatedOutOfMemoryError:
        rounded = caching.round_size(requested_bytes, self.config.roundup_divisions)
        n_left = self._allocator.capacity_bytes - self._allocator.device_used_bytes
        return SimulatedOutOfMemoryError(requested_bytes, rounded, n_left)

    def free(self, address: int, *, waits: bool = False) -> None:
        """Take back what :meth:`malloc` gave; 0 is taken as the request of no bytes that it came from.

        With ``waits`` another stream still uses the memory: it stays out of reach until :meth:`complete_free`, or until
        a reclaim waits for all streams.

        Raises
        ------
        UsageError
            If nothing is allocated at that address.
        """
        if address == 0:
            return
        block = self._block_at.get(address)
        if block is None or not block.is_alive or block.state != caching.BlockState.ALLOCATED:
            raise UsageError(f"nothing is allocated at {address:#x}")
        if not waits:
            del self._block_at[address]
        self._allocator.free(block, waits)

    def block_bytes(self, address: int) -> int:
        """Size of the block that an allocation has."""
        return self._block_at[address].size_bytes

    def complete_free(self, address: int) -> bool:
        """The streams that a freed address waited for are done; False if a reclaim had already waited for them."""
        block = self._block_at.get(address)
        if block is None or (block.is_alive and block.state == caching.BlockState.ALLOCATED):
            return False
        del self._block_at[address]
        if not block.is_alive or block.state != caching.BlockState.PENDING:
            return False
        self._allocator.complete_free(block)
        return True

    def empty_cache(self) -> None:
        """Wait for all streams and give all unused memory back: ``torch.cuda.empty_cache()``."""
        self._allocator.empty_cache()

    def limit(self, allowed_bytes: int) -> None:
        """PyTorch may reserve at most so much from now on."""
        self._allocator.allowed_bytes = allowed_bytes

    def release_pool(self, pool: tuple[int, int]) -> None:
        """A private pool's owner is gone: reclaims may give its unused memory back, as upstream's ``releasePool``."""
        self._released.add(pool)
        released = self._pools.get(pool)
        for each in self._allocator.pools:
            each.is_releasable = each.is_releasable or each.pool_id == released

    def drain_events(self) -> list[SimulatedEvent]:
        """What happened since the last call, in order; allocs and frees carry requested bytes, as in PyTorch."""
        places = self._places
        if len(places) < len(self._pairs):
            pools = self.pools
            places[:] = [(stream, pools[pool]) for pool, stream in self._pairs]
        return [
            SimulatedEvent(_ACTIONS[entry.action], entry.address, entry.size_bytes, *places[entry.pool // 2])
            for entry in self._allocator.drain_trace()
        ]

    def state(self) -> AllocatorState:
        """The address space now; stream and pool ids are positions in :attr:`stream_handles` and :attr:`pools`."""
        stream_ids = np.array([self._streams[stream] for _, stream in self._pairs], np.int32)
        pool_ids = np.array([pool for pool, _ in self._pairs], np.int32)
        return state_of(self._allocator, stream_ids, pool_ids, device=self.device)

    @property
    def stats(self) -> caching.DeviceStats:
        """Counters now."""
        return self._allocator.stats

    def check(self) -> None:
        """Check every invariant of the blocks, segments, free sets and counters.

        Raises
        ------
        InvariantError
            If one is broken.
        """
        check_allocator(self._allocator)
