"""What an allocator made of a recording's requests, and the calls of the CUDA driver that it took."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple

import numpy as np
from typing_extensions import Self

from memscope.fragmentation.metrics import Fragmentation
from memscope.lifetimes.tables import UsageSeries
from memscope.trace.tables import Int64Array

_US = 1_000
_VMM_SOURCE = "A100, 2 MiB pages: vAttention (arXiv 2405.04437), latency of the CUDA virtual memory calls"
_TYPICAL = "order of magnitude on data-centre GPUs; not from one published table"


@dataclass(frozen=True, slots=True)
class CallCost:
    """Host time of one call without waiting for kernels, and where the figure comes from."""

    per_call_ns: int
    source: str


CALL_COSTS: Mapping[str, CallCost] = MappingProxyType(
    {
        "cudaMalloc": CallCost(100 * _US, _TYPICAL),
        "cudaFree": CallCost(100 * _US, f"{_TYPICAL}; it also waits for the device"),
        "cudaDeviceSynchronize": CallCost(10 * _US, f"{_TYPICAL}; what it waits for comes on top"),
        "cudaStreamSynchronize": CallCost(5 * _US, f"{_TYPICAL}; what it waits for comes on top"),
        "cudaMallocAsync": CallCost(2 * _US, f"{_TYPICAL}; where the pool has the memory"),
        "cudaFreeAsync": CallCost(1 * _US, _TYPICAL),
        "cuMemAddressReserve": CallCost(2 * _US, _VMM_SOURCE),
        "cuMemAddressFree": CallCost(1 * _US, _VMM_SOURCE),
        "cuMemCreate": CallCost(29 * _US, _VMM_SOURCE),
        "cuMemMap": CallCost(2 * _US, _VMM_SOURCE),
        "cuMemSetAccess": CallCost(38 * _US, _VMM_SOURCE),
        "cuMemUnmap": CallCost(34 * _US, _VMM_SOURCE),
        "cuMemRelease": CallCost(23 * _US, _VMM_SOURCE),
    }
)
"""Every kind of call that a strategy may count."""


@dataclass(frozen=True, slots=True)
class DriverCalls:
    """Number of calls by kind; kinds that never happened are left out.

    Raises
    ------
    KeyError
        If a kind is not in :data:`CALL_COSTS`.
    """

    counts: Mapping[str, int]

    def __post_init__(self) -> None:
        kept = {kind: self.counts[kind] for kind in CALL_COSTS if self.counts.get(kind)}
        unknown = set(self.counts) - set(CALL_COSTS)
        if unknown:
            raise KeyError(f"no cost is known for {', '.join(sorted(unknown))}")
        object.__setattr__(self, "counts", kept)

    @property
    def n_calls(self) -> int:
        """All calls."""
        return sum(self.counts.values())

    @property
    def modelled_cost_ns(self) -> int:
        """Host time of all calls by :data:`CALL_COSTS`, without what synchronising calls wait for."""
        return sum(n * CALL_COSTS[kind].per_call_ns for kind, n in self.counts.items())


Exactness = Literal["exact", "modelled", "bound"]


@dataclass(frozen=True, slots=True)
class ReplayOom:
    """The request that could not be served: the replay ends there.

    Attributes
    ----------
    event
        Where it was asked for; −1 before the first event.
    requested_bytes, free_bytes
        What was asked for, and what the device still had then, after every reclaim.
    reserved_free_bytes, largest_free_block_bytes
        Free inside reserved memory at that moment, and the largest of its blocks; None where not measured.
    """

    event: int
    requested_bytes: int
    free_bytes: int
    reserved_free_bytes: int | None = None
    largest_free_block_bytes: int | None = None


class UnusedBytes(NamedTuple):
    """Reserved bytes not in use: at the most, and in the mean of all moments, rounded down."""

    largest: int
    mean_over_events: int

    @classmethod
    def of(cls, usage: UsageSeries) -> UnusedBytes:
        """Those of a whole series with reserved bytes."""
        assert usage.reserved_bytes is not None
        unused = usage.reserved_bytes - usage.active_bytes
        return cls(int(unused.max()), int(unused.mean()))


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """What an allocator made of a recording's requests.

    Attributes
    ----------
    strategy, conf
        Name in the registry; the settings as a ``PYTORCH_ALLOC_CONF`` string, where the strategy has any.
    exactness
        ``exact``: PyTorch's own decisions for these requests; ``modelled``: under assumptions that ``notes`` name;
        ``bound``: no allocator can need less.
    usage
        Bytes after each event, up to the one that ran out of memory if one did.
    peak_reserved_bytes, peak_active_bytes
        Each at its own highest.
    n_device_allocs, n_device_frees, n_retries
        Calls that take memory from the driver and that give it back, and requests served only after a reclaim; None
        where the strategy has no such thing.
    n_ooms
        Requests refused, of those that failed in the recording too and the program went on after, and the one that
        ended the replay; None where nothing can be refused.
    oom
        The request that could not be served, None if all were.
    driver_calls
        The same calls by kind, None where the strategy has no driver.
    unused
        Reserved bytes not in use, over all events; None where none was served.
    fragmentation
        Metrics of a moment with the most reserved memory: the first, or the fullest where a strategy reserves all at
        once. None where they were not asked for.
    """

    strategy: str
    device: int
    conf: str | None
    exactness: Exactness
    usage: UsageSeries
    peak_reserved_bytes: int
    peak_active_bytes: int
    n_device_allocs: int | None
    n_device_frees: int | None
    n_retries: int | None
    oom: ReplayOom | None
    notes: tuple[str, ...] = ()
    driver_calls: DriverCalls | None = None
    unused: UnusedBytes | None = None
    fragmentation: Fragmentation | None = None
    n_ooms: int | None = None

    @property
    def efficiency_frac(self) -> float | None:
        """Peak active bytes over peak reserved bytes, each at its own moment; 1.0 where nothing was reserved.

        None where memory ran out before any was.
        """
        if self.oom is not None and not self.peak_reserved_bytes:
            return None
        return self.peak_active_bytes / self.peak_reserved_bytes if self.peak_reserved_bytes else 1.0

    def at_peak(self) -> Self:
        """The same result with its usage cut down to the first moment of its peak: small, to keep many of."""
        reserved = self.usage.reserved_bytes
        index = 0 if reserved is None else int(np.argmax(reserved))
        names = ("allocated_bytes", "active_bytes", "requested_bytes", "reserved_bytes")
        columns = (getattr(self.usage, name) for name in names)
        kept = (None if column is None else np.array(column[index : index + 1]) for column in columns)
        return dataclasses.replace(self, usage=UsageSeries(self.usage.first_event + index, *kept))  # type: ignore[arg-type]

    @property
    def unused_bytes(self) -> Int64Array:
        """Reserved minus active bytes after each event: int64 (n + 1,)."""
        reserved = self.usage.reserved_bytes
        unused: Int64Array = (
            np.zeros(len(self.usage), np.int64) if reserved is None else reserved - self.usage.active_bytes
        )
        return unused
