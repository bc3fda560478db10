"""Binary buddies: blocks are powers of two."""

from __future__ import annotations

from memscope._core import models
from memscope.errors import UsageError
from memscope.replay.models.model import NO_LIMIT, Model, check_powers, mallocs_and_frees
from memscope.units import MiB


def new_buddy(
    capacity_bytes: int = NO_LIMIT,
    is_logged: bool = False,
    *,
    min_block_bytes: int = 512,
    chunk_bytes: int = 32 * MiB,
) -> models.Buddy:
    """Binary buddies.

    Parameters
    ----------
    capacity_bytes, is_logged
        What the driver can give out, −1 for no limit; whether what it does is logged.
    min_block_bytes
        The smallest block; 512 is what PyTorch rounds requests to.
    chunk_bytes
        What is asked of the driver at once, unless a request needs more.

    Raises
    ------
    UsageError
        If one of them is no power of two, or the chunk is smaller than a block.
    """
    check_powers(min_block_bytes=min_block_bytes, chunk_bytes=chunk_bytes)
    if chunk_bytes < min_block_bytes:
        raise UsageError(f"chunk_bytes is {chunk_bytes}, less than min_block_bytes, which is {min_block_bytes}")
    return models.Buddy(capacity_bytes, is_logged, min_block_bytes=min_block_bytes, chunk_bytes=chunk_bytes)


BUDDY = Model(
    name="buddy",
    summary="binary buddies: blocks are powers of two",
    source="Knuth, The Art of Computer Programming, volume 1, section 2.5",
    notes=(
        "buddy: the driver is asked for 32 MiB at once, or the next power of two of a larger request",
        "buddy: one allocator serves all streams, and memory freed on one is reused on another without waiting",
    ),
    new_allocator=new_buddy,
    calls=mallocs_and_frees,
    merges_neighbours=False,
)
