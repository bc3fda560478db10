"""Calls of the CUDA driver that a strategy makes, and an estimate of the host time that they take.

The estimate is a model: it multiplies counts by :data:`CALL_COSTS`, and knows nothing of the kernels that a
synchronising call waits for. It ranks strategies; it does not time them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

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
