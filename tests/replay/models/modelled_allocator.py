"""A modelled allocator call by call, for what holds it against its twin and its invariants after every step.

Replays serve whole recordings in one loop over the same acts of the model; nothing but tests makes single calls.
"""

from __future__ import annotations

from memscope._core import caching
from memscope.device.limits import NO_LIMITS, Limits
from memscope.errors import UsageError
from memscope.lifetimes.state import AllocatorState
from memscope.replay.caching._invariants import check_allocator
from memscope.replay.caching.allocator import (
    DEFAULT_POOL,
    SimulatedEvent,
    SimulatedOutOfMemoryError,
)
from memscope.replay.models.model import Model
from memscope.replay.models.modelled import model_state, new_allocator
from memscope.replay.result import DriverCalls
from memscope.trace.schema import NONE_ID, Action

_ACTIONS = tuple(Action)


class ModelledAllocator:
    """A modelled allocator on one device, call by call.

    Parameters
    ----------
    model
        Which.
    limits
        What it can have of the device; no limit if not given.
    parameters
        Named parameters of the model.
    """

    def __init__(self, model: Model, limits: Limits = NO_LIMITS, *, device: int = 0, **parameters: int) -> None:
        self.model = model
        self.device = device
        self.core = new_allocator(model, limits, [0], is_logged=True, **parameters)
        self._streams = [0]
        self._n_own = self.core.n_pairs - 1
        self._block_at: dict[int, caching.Block] = {}
        self._waiting: dict[int, tuple[caching.Block, int]] = {}

    def _pair(self, stream: int) -> int:
        if stream not in self._streams:
            self._streams.append(stream)
            self.core.add_pair(0, stream)
        return self._n_own + self._streams.index(stream)

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
        block = self.core.malloc(self._pair(stream), requested_bytes)
        if block is None:
            free_bytes = self.core.capacity_bytes - self.core.device_used_bytes
            raise SimulatedOutOfMemoryError(requested_bytes, requested_bytes, free_bytes)
        address = self.core.address_of(block)
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
        if address not in self._block_at:
            raise UsageError(f"nothing is allocated at {address:#x}")
        block = self._block_at.pop(address)
        if waits:
            self._waiting[address] = block, self.n_waits
        self.core.free(block, waits)

    def complete_free(self, address: int) -> bool:
        """The streams that a freed address waited for are done; False if the allocator had already waited for them."""
        block, n_waits = self._waiting.pop(address, (None, 0))
        if block is None or n_waits != self.n_waits:
            return False
        self.core.complete_free(block)
        return True

    def empty_cache(self) -> None:
        """Wait for all streams and give all unused memory back."""
        self.core.empty_cache()

    def drain_events(self) -> list[SimulatedEvent]:
        """What happened since the last call, in order."""
        streams = [NONE_ID] * self._n_own + self._streams
        return [
            SimulatedEvent(
                _ACTIONS[entry.action], entry.address, entry.size_bytes, streams[entry.pool // 2], DEFAULT_POOL
            )
            for entry in self.core.drain_trace()
        ]

    def state(self) -> AllocatorState:
        """The address space now; stream ids are in the order of first use."""
        stream_ids = list(range(len(self._streams)))
        return model_state(self.core, stream_ids, device=self.device, event=NONE_ID)

    @property
    def stats(self) -> caching.DeviceStats:
        """Counters now."""
        return self.core.stats

    @property
    def n_waits(self) -> int:
        """How often it has waited for all streams."""
        return self.core.stats.n_syncs

    @property
    def driver_calls(self) -> DriverCalls:
        """Calls of the driver so far."""
        return self.model.calls(self.core)

    def check(self) -> None:
        """Check every invariant of the blocks, segments, free sets and counters.

        Raises
        ------
        InvariantError
            If one is broken.
        """
        model = self.model
        check_allocator(
            self.core,
            merges_neighbours=model.merges_neighbours,
            mixes_pools=model.mixes_pools,
            sorts_by_address=model.sorts_by_address,
        )
