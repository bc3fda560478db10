"""A modelled allocator call by call, for what holds it against its twin and its invariants after every step.

Replays serve whole recordings in one loop over the same acts of the policy; nothing but tests makes single calls.
"""

from __future__ import annotations

from dataclasses import dataclass

from memscope._kernels import caching_layout as at
from memscope._kernels import policies, policy_blocks
from memscope.device.limits import NO_LIMITS, Limits
from memscope.errors import UsageError
from memscope.lifetimes.state import AllocatorState
from memscope.replay.caching._invariants import check_arrays
from memscope.replay.caching.allocator import (
    DEFAULT_POOL,
    SimulatedEvent,
    SimulatedOutOfMemoryError,
)
from memscope.replay.caching.arrays import grow
from memscope.replay.models.model import Model
from memscope.replay.models.modelled import empty_arrays, model_state, with_streams
from memscope.replay.result import DriverCalls
from memscope.trace.schema import NONE_ID, Action

_ACTIONS = tuple(Action)


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


class ModelledAllocator:
    """A modelled allocator on one device, call by call.

    Parameters
    ----------
    model
        Which.
    limits
        What it can have of the device; no limit if not given.
    parameters
        Named parameters of the model's policy.
    """

    def __init__(self, model: Model, limits: Limits = NO_LIMITS, *, device: int = 0, **parameters: int) -> None:
        self.model = model
        self.device = device
        self._policy = model.new_policy(**parameters)
        self._arrays = empty_arrays(limits, is_logged=True)
        self._streams: list[int] = []
        self._block_at: dict[int, int] = {}
        self._waiting: dict[int, tuple[int, int]] = {}
        self._pair(0)

    def _pair(self, stream: int) -> int:
        if stream not in self._streams:
            self._streams.append(stream)
            self._arrays = with_streams(self._arrays, self.model, self._streams)
        return self.model.n_extra_pairs + self._streams.index(stream)

    def malloc(self, requested_bytes: int, stream: int = 0, pool: tuple[int, int] = DEFAULT_POOL) -> int:
        """Serve a request and return its address; 0 for a request of no bytes, which leaves no event.

        Raises
        ------
        SimulatedOutOfMemoryError
            If it cannot be served.
        UsageError
            If the size is negative, or a private pool is asked for: only the caching allocator has them.
        """
        if pool != DEFAULT_POOL:
            raise UsageError(f"{self.model.name} has no private pools")
        if requested_bytes <= 0:
            if requested_bytes < 0:
                raise UsageError(f"a request of {requested_bytes} bytes cannot be served")
            return 0
        pair = self._pair(stream)
        block = int(policies.malloc(self._policy, self._arrays, pair, requested_bytes))
        while block == at.STATUS_GROW:
            self._grow()
            block = int(policies.malloc(self._policy, self._arrays, pair, requested_bytes))
        if block == at.STATUS_OOM:
            free_bytes = int(self._arrays.config[at.CFG_CAPACITY] - self._arrays.counters[at.C_DEVICE_USED])
            raise SimulatedOutOfMemoryError(requested_bytes, requested_bytes, free_bytes)
        address = int(policies.address_of(self._policy, self._arrays, block))
        self._block_at[address] = block
        return address

    def free(self, address: int, *, waits: bool = False) -> None:
        """Take back what :meth:`malloc` gave; with ``waits`` it stays out of reach until :meth:`complete_free`.

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
        del self._block_at[address]
        if waits:
            self._waiting[address] = block, int(self._arrays.counters[at.C_N_SYNCS])
        policy_blocks.request_free(self._policy, self._arrays, block, waits)

    def complete_free(self, address: int) -> bool:
        """The streams that a freed address waited for are done; False if the allocator had already waited for them."""
        block, n_syncs = self._waiting.pop(address, (NONE_ID, NONE_ID))
        if block == NONE_ID or n_syncs != self._arrays.counters[at.C_N_SYNCS]:
            return False
        self._room()
        policy_blocks.complete_free(self._policy, self._arrays, block)
        return True

    def empty_cache(self) -> None:
        """Wait for all streams and give all unused memory back."""
        self._room()
        policies.release(self._policy, self._arrays)

    def _grow(self) -> None:
        self._arrays = grow(self._arrays)
        self._policy = self.model.grow_policy(self._policy)

    def _room(self) -> None:
        if not at.has_room(self._arrays):
            self._grow()

    def drain_events(self) -> list[SimulatedEvent]:
        """What happened since the last call, in order."""
        n_events = int(self._arrays.counters[at.C_LOG])
        self._arrays.counters[at.C_LOG] = 0
        streams = [NONE_ID] * self.model.n_extra_pairs + self._streams
        return [
            SimulatedEvent(_ACTIONS[action], address, size_bytes, streams[lane // 2], DEFAULT_POOL)
            for action, address, size_bytes, lane in self._arrays.log[:n_events].tolist()
        ]

    def state(self) -> AllocatorState:
        """The address space now; stream ids are in the order of first use."""
        stream_ids = list(range(len(self._streams)))
        return model_state(self._arrays, self.model, stream_ids, device=self.device, event=NONE_ID)

    @property
    def stats(self) -> AllocatorStats:
        """Counters now."""
        return stats_of(self._arrays)

    @property
    def n_waits(self) -> int:
        """How often it has waited for all streams."""
        return int(self._arrays.counters[at.C_N_SYNCS])

    @property
    def driver_calls(self) -> DriverCalls:
        """Calls of the driver so far."""
        return self.model.calls(self._policy, self._arrays.counters)

    def check(self) -> None:
        """Check every invariant of the blocks, segments, free sets and counters.

        Raises
        ------
        InvariantError
            If one is broken.
        """
        model = self.model
        check_arrays(self._arrays, merges_neighbours=model.merges_neighbours, mixes_lanes=model.mixes_lanes)
