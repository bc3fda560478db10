"""RMM's arenas: one for each stream, fed with superblocks by a global one."""

from __future__ import annotations

from memscope._core import models
from memscope.errors import UsageError
from memscope.replay.models.model import NO_LIMIT, Model, check_powers, check_sizes, mallocs_and_frees
from memscope.replay.result import DriverCalls
from memscope.units import MiB


def new_arena(
    capacity_bytes: int = NO_LIMIT,
    is_logged: bool = False,
    *,
    alignment_bytes: int = 256,
    superblock_bytes: int = 1 * MiB,
    initial_arena_bytes: int = 0,
) -> models.Arena:
    """RMM's arenas, whose extent grows as it is touched.

    Parameters
    ----------
    capacity_bytes, is_logged
        What the driver can give out, −1 for no limit; whether what it does is logged.
    alignment_bytes
        What sizes are rounded up to.
    superblock_bytes
        The smallest superblock; larger requests are served by the global arena itself.
    initial_arena_bytes
        What the global arena takes at its first request; RMM takes half of the device unless it is told a size.

    Raises
    ------
    UsageError
        If one of them makes no sense.
    """
    check_powers(alignment_bytes=alignment_bytes)
    check_sizes(superblock_bytes=superblock_bytes)
    if superblock_bytes % alignment_bytes:
        raise UsageError(f"superblock_bytes is {superblock_bytes}: it must be a multiple of {alignment_bytes}")
    if initial_arena_bytes < 0 or initial_arena_bytes % alignment_bytes:
        raise UsageError(f"initial_arena_bytes is {initial_arena_bytes}: it must be a multiple of {alignment_bytes}")
    return models.Arena(
        capacity_bytes,
        is_logged,
        alignment_bytes=alignment_bytes,
        superblock_bytes=superblock_bytes,
        initial_arena_bytes=initial_arena_bytes,
    )


def _arena_calls(allocator: models.Arena) -> DriverCalls:
    """The global arena is one allocation; a free of a large request waits for its stream."""
    taken_and_given = mallocs_and_frees(allocator).counts
    return DriverCalls({**taken_and_given, "cudaStreamSynchronize": allocator.stats.n_stream_syncs})


ARENA = Model(
    name="arena",
    summary="an arena for each stream, fed with superblocks by a global one",
    source="RMM, arena_memory_resource",
    notes=(
        "arena: the global arena grows as it is touched, where RMM takes half of the device first",
        "arena: an emptied cache cleans all arenas and gives the unused end of the extent back, where RMM keeps it",
    ),
    new_allocator=new_arena,
    calls=_arena_calls,
    sorts_by_address=True,
)
