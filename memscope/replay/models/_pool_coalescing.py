"""RMM's pool: it doubles, with a free list for each stream."""

from __future__ import annotations

from memscope._core import models
from memscope.errors import UsageError
from memscope.replay.models.model import NO_LIMIT, Model, check_powers, check_switches, mallocs_and_frees


def check_pool(alignment_bytes: int, initial_pool_bytes: int, maximum_pool_bytes: int, returns_memory: int) -> None:
    """The parameters of a pool must make sense, of one below bins too."""
    check_powers(alignment_bytes=alignment_bytes)
    check_switches(returns_memory=returns_memory)
    if initial_pool_bytes < 0 or initial_pool_bytes % alignment_bytes:
        raise UsageError(f"initial_pool_bytes is {initial_pool_bytes}: it must be a multiple of {alignment_bytes}")
    if maximum_pool_bytes != NO_LIMIT and maximum_pool_bytes < max(initial_pool_bytes, 1):
        raise UsageError(f"maximum_pool_bytes is {maximum_pool_bytes}, less than the pool starts with")


def new_pool(
    capacity_bytes: int = NO_LIMIT,
    is_logged: bool = False,
    *,
    alignment_bytes: int = 256,
    initial_pool_bytes: int = 0,
    maximum_pool_bytes: int = NO_LIMIT,
    returns_memory: int = 1,
) -> models.Pool:
    """RMM's pool, without the half of the device that its Python interface takes at the start.

    Parameters
    ----------
    capacity_bytes, is_logged
        What the driver can give out, −1 for no limit; whether what it does is logged.
    alignment_bytes
        What sizes are rounded up to.
    initial_pool_bytes
        What is taken from the driver before the first request.
    maximum_pool_bytes
        What the pool may grow to: it then grows by half of what remains. −1 for no limit: it then doubles.
    returns_memory
        1 if unused memory goes back when the cache is emptied, and before a request fails; 0 for RMM's own behaviour,
        which keeps everything until the pool is destroyed.

    Raises
    ------
    UsageError
        If one of them makes no sense.
    """
    check_pool(alignment_bytes, initial_pool_bytes, maximum_pool_bytes, returns_memory)
    return models.Pool(
        capacity_bytes,
        is_logged,
        alignment_bytes=alignment_bytes,
        initial_pool_bytes=initial_pool_bytes,
        maximum_pool_bytes=maximum_pool_bytes,
        returns_memory=bool(returns_memory),
    )


POOL_COALESCING = Model(
    name="pool-coalescing",
    summary="a pool that doubles, with a free list for each stream",
    source="RMM, pool_memory_resource",
    notes=(
        "pool-coalescing: the pool starts empty and doubles when it grows; RMM can take half of the device first",
        "pool-coalescing: a stream whose own list has no block takes another's, and waits for it on the device",
        "pool-coalescing: unused memory goes back when the cache is emptied and before a request fails; RMM keeps it",
    ),
    new_allocator=new_pool,
    calls=mallocs_and_frees,
    mixes_pools=True,
)
