"""PyTorch's caching allocator, simulated call by call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from memscope._kernels import caching as kernel
from memscope._kernels import caching_blocks as block_kernel
from memscope._kernels import caching_layout as at
from memscope._kernels.caching_rules import round_size
from memscope.device.limits import NO_LIMITS, Limits
from memscope.errors import UsageError
from memscope.lifetimes.state import AllocatorState
from memscope.replay.caching._invariants import check_arrays
from memscope.replay.caching.arrays import AddressRule, grow, new_arrays, state_of, with_lanes
from memscope.replay.config import DEFAULT_TIE_RULE, CachingAllocatorConfig
from memscope.trace.schema import Action, TieRule

_ACTIONS = tuple(Action)

DEFAULT_POOL = (0, 0)
"""Id of the pool that every request comes from which names no other."""


class SimulatedEvent(NamedTuple):
    """One thing a simulated allocator did, in the words and sizes of PyTorch's own history."""

    action: Action
    address: int
    size_bytes: int
    stream: int
    pool: tuple[int, int]


@dataclass(frozen=True, slots=True)
class AllocatorStats:
    """Counters of a simulated allocator: bytes now and at their peak, calls so far."""

    reserved_bytes: int
    active_bytes: int
    allocated_bytes: int
    requested_bytes: int
    peak_reserved_bytes: int
    peak_active_bytes: int
    peak_allocated_bytes: int
    peak_requested_bytes: int
    n_device_allocs: int
    n_device_frees: int
    n_retries: int
    n_ooms: int


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
        self._arrays = new_arrays(self.config, limits, tie_rule=tie_rule, address_rule=address_rule)
        self._pools: dict[tuple[int, int], int] = {DEFAULT_POOL: 0}
        self._streams: dict[int, int] = {0: 0}
        self._pairs: dict[tuple[int, int], int] = {}
        self._block_at: dict[int, int] = {}
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
            self._arrays = with_lanes(self._arrays, tuple(self._pairs), is_private_releasable=False)
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
        block = int(kernel.malloc(self._arrays, pair, requested_bytes))
        while block == at.STATUS_GROW:
            self._arrays = grow(self._arrays)
            block = int(kernel.malloc(self._arrays, pair, requested_bytes))
        if block == at.STATUS_OOM:
            raise self._out_of_memory(requested_bytes)
        address = int(self._arrays.blocks[block, at.B_ADDRESS])
        self._block_at[address] = block
        return address

    def _out_of_memory(self, requested_bytes: int) -> SimulatedOutOfMemoryError:
        arrays = self._arrays
        rounded = int(round_size(requested_bytes, arrays.config[at.CFG_DIVISIONS :]))
        n_left = int(arrays.config[at.CFG_CAPACITY] - arrays.counters[at.C_DEVICE_USED])
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
        if block is None or self._arrays.blocks[block, at.B_STATE] != at.ALLOCATED:
            raise UsageError(f"nothing is allocated at {address:#x}")
        self._room()
        if not waits:
            del self._block_at[address]
        block_kernel.request_free(self._arrays, block, waits)

    def complete_free(self, address: int) -> bool:
        """The streams that a freed address waited for are done; False if a reclaim had already waited for them."""
        block = self._block_at.pop(address, None)
        arrays = self._arrays
        if block is None or arrays.blocks[block, at.B_STATE] != at.PENDING:
            if block is not None and arrays.blocks[block, at.B_STATE] == at.ALLOCATED:
                self._block_at[address] = block
            return False
        self._room()
        block_kernel.complete_free(self._arrays, block)
        return True

    def _room(self) -> None:
        if not at.has_room(self._arrays):
            self._arrays = grow(self._arrays)

    def empty_cache(self) -> None:
        """Wait for all streams and give all unused memory back: ``torch.cuda.empty_cache()``."""
        self._room()
        kernel.empty_cache(self._arrays)

    def drain_events(self) -> list[SimulatedEvent]:
        """What happened since the last call, in order; allocs and frees carry requested bytes, as in PyTorch."""
        n_events = int(self._arrays.counters[at.C_LOG])
        self._arrays.counters[at.C_LOG] = 0
        pools = self.pools
        places = [(stream, pools[pool]) for pool, stream in self._pairs]
        return [
            SimulatedEvent(_ACTIONS[action], address, size_bytes, *places[lane // 2])
            for action, address, size_bytes, lane in self._arrays.log[:n_events].tolist()
        ]

    def state(self) -> AllocatorState:
        """The address space now; stream and pool ids are positions in :attr:`stream_handles` and :attr:`pools`."""
        stream_ids = np.array([self._streams[stream] for _, stream in self._pairs], np.int32)
        pool_ids = np.array([pool for pool, _ in self._pairs], np.int32)
        return state_of(self._arrays, stream_ids, pool_ids, device=self.device)

    @property
    def stats(self) -> AllocatorStats:
        """Counters now."""
        return stats_of(self._arrays)

    def check(self) -> None:
        """Check every invariant of the blocks, segments, free sets and counters.

        Raises
        ------
        InvariantError
            If one is broken.
        """
        check_arrays(self._arrays)


def stats_of(arrays: at.CachingArrays) -> AllocatorStats:
    """Counters of an allocator's arrays."""
    counters = arrays.counters.tolist()
    return AllocatorStats(
        reserved_bytes=counters[at.C_RESERVED],
        active_bytes=counters[at.C_ACTIVE],
        allocated_bytes=counters[at.C_ALLOCATED],
        requested_bytes=counters[at.C_REQUESTED],
        peak_reserved_bytes=counters[at.C_PEAK_RESERVED],
        peak_active_bytes=counters[at.C_PEAK_ACTIVE],
        peak_allocated_bytes=counters[at.C_PEAK_ALLOCATED],
        peak_requested_bytes=counters[at.C_PEAK_REQUESTED],
        n_device_allocs=counters[at.C_N_DEVICE_ALLOCS],
        n_device_frees=counters[at.C_N_DEVICE_FREES],
        n_retries=counters[at.C_N_RETRIES],
        n_ooms=counters[at.C_N_OOMS],
    )
