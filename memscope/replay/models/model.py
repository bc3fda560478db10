"""What a modelled allocator is, and what its parameters and its driver calls have in common with others'."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from memscope._kernels import caching_layout as at
from memscope.errors import UsageError
from memscope.replay.result import DriverCalls
from memscope.trace.tables import Int64Array

Policy = Any
"""A NamedTuple of parameters, registered in :mod:`memscope._kernels.policies`."""

NO_LIMIT = -1
"""The parameter of a limit that is not set."""


def _same(policy: Policy) -> Policy:
    return policy


@dataclass(frozen=True, slots=True)
class Model:
    """A modelled allocator.

    Attributes
    ----------
    name, summary, source
        Its name in the registry; one line for lists; what it is modelled after.
    notes
        What is assumed, a sentence each.
    new_policy
        The policy with its default parameters; keyword arguments replace them.
    calls
        Driver calls by kind, from the policy and the counters (int64, by :mod:`memscope._kernels.caching_layout`).
    grow_policy
        A policy with more room in its own arrays, for those that have any.
    merges_neighbours
        Whether adjacent free blocks of a segment and the same lane are always merged.
    mixes_lanes
        Whether blocks of one segment may be in several lanes: free memory changes its stream.
    n_extra_pairs
        Pairs of lanes that the policy needs for itself: they come before those of the program's streams.
    """

    name: str
    summary: str
    source: str
    notes: tuple[str, ...]
    new_policy: Callable[..., Policy]
    calls: Callable[[Policy, Int64Array], DriverCalls]
    grow_policy: Callable[[Policy], Policy] = _same
    merges_neighbours: bool = True
    mixes_lanes: bool = False
    n_extra_pairs: int = 0


def check_sizes(**sizes_bytes: int) -> None:
    """Sizes must be positive."""
    for name, n_bytes in sizes_bytes.items():
        if n_bytes <= 0:
            raise UsageError(f"{name} is {n_bytes}: it must be positive")


def check_powers(**sizes_bytes: int) -> None:
    """Sizes must be powers of two."""
    for name, n_bytes in sizes_bytes.items():
        if n_bytes <= 0 or n_bytes & (n_bytes - 1):
            raise UsageError(f"{name} is {n_bytes}: it must be a power of two")


def check_switches(**switches: int) -> None:
    """Switches must be 0 or 1."""
    for name, value in switches.items():
        if value not in (0, 1):
            raise UsageError(f"{name} is {value}: it must be 0 or 1")


def mallocs_and_frees(policy: Policy, counters: Int64Array) -> DriverCalls:
    """Every take and give is one ``cudaMalloc`` or ``cudaFree``; a reclaim waits for the device."""
    return DriverCalls(
        {
            "cudaMalloc": int(counters[at.C_N_DEVICE_ALLOCS]),
            "cudaFree": int(counters[at.C_N_DEVICE_FREES]),
            "cudaDeviceSynchronize": int(counters[at.C_N_SYNCS]),
        }
    )


def mapping_calls(counters: Int64Array, n_creates: int, n_releases: int) -> dict[str, int]:
    """Calls of an allocator that maps handles which it creates and releases itself."""
    return {
        "cuMemAddressReserve": int(counters[at.C_N_RESERVATIONS]),
        "cuMemAddressFree": int(counters[at.C_N_RESERVATIONS_DROPPED]),
        "cuMemCreate": n_creates,
        "cuMemMap": int(counters[at.C_N_MAPPED_HANDLES]),
        "cuMemSetAccess": int(counters[at.C_N_MAP_CALLS]),
        "cuMemUnmap": int(counters[at.C_N_UNMAPPED_HANDLES]),
        "cuMemRelease": n_releases,
        "cudaDeviceSynchronize": int(counters[at.C_N_SYNCS]),
    }
