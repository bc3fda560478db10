"""RMM's arenas: one for each stream, fed with superblocks by a global one."""

from __future__ import annotations

import numpy as np

from memscope._kernels import caching_layout as at
from memscope._kernels.address_sets import PATH_ROWS
from memscope._kernels.policy_arena import Arena
from memscope.errors import UsageError
from memscope.replay.models.model import Model, Policy, check_powers, check_sizes, mallocs_and_frees
from memscope.replay.result import DriverCalls
from memscope.trace.tables import Int64Array
from memscope.units import MiB


def new_arena(*, alignment_bytes: int = 256, superblock_bytes: int = 1 * MiB, initial_arena_bytes: int = 0) -> Arena:
    """RMM's arenas, whose extent grows as it is touched.

    Parameters
    ----------
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
    path = np.zeros(PATH_ROWS, np.int64)
    return Arena(alignment_bytes, superblock_bytes, initial_arena_bytes, path)


def _arena_calls(policy: Policy, counters: Int64Array) -> DriverCalls:
    """The global arena is one allocation; a free of a large request waits for its stream."""
    taken_and_given = mallocs_and_frees(policy, counters).counts
    return DriverCalls({**taken_and_given, "cudaStreamSynchronize": int(counters[at.C_N_STREAM_SYNCS])})


ARENA = Model(
    name="arena",
    summary="an arena for each stream, fed with superblocks by a global one",
    source="RMM, arena_memory_resource",
    notes=(
        "arena: the global arena grows as it is touched, where RMM takes half of the device first",
        "arena: an emptied cache cleans all arenas and gives the unused end of the extent back, where RMM keeps it",
    ),
    new_policy=new_arena,
    calls=_arena_calls,
    n_extra_pairs=1,
)
