"""What every simulated allocator offers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from memscope.lifetimes.state import AllocatorState
from memscope.trace.schema import Action

DEFAULT_POOL = (0, 0)


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


class SimulatedAllocator(Protocol):
    """An allocator without a device: requests in, addresses out."""

    def malloc(self, requested_bytes: int, stream: int = 0, pool: tuple[int, int] = DEFAULT_POOL) -> int:
        """Serve a request and return its address; 0 for a request of no bytes.

        Raises
        ------
        SimulatedOutOfMemoryError
            If it cannot be served.
        """
        ...

    def free(self, address: int) -> None:
        """Take back what :meth:`malloc` gave at that address."""
        ...

    def empty_cache(self) -> None:
        """Give all unused memory back to the device."""
        ...

    def drain_events(self) -> list[SimulatedEvent]:
        """What happened since the last call, in order."""
        ...

    def state(self) -> AllocatorState:
        """The address space now."""
        ...

    @property
    def stats(self) -> AllocatorStats:
        """Counters now."""
        ...

    def check(self) -> None:
        """Check every invariant.

        Raises
        ------
        InvariantError
            If one is broken.
        """
        ...
