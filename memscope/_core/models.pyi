"""
Allocators that are models, after what is known of others than PyTorch's own.
"""

from typing import Annotated, Final

import numpy
from numpy.typing import NDArray

import memscope._core.caching


class CudaMalloc(memscope._core.caching.BlockAllocator):
    def __init__(self, capacity_bytes: int, is_logged: bool, alignment_bytes: int, page_bytes: int) -> None:
        """
        An allocator that holds nothing and has no pairs of pools but its own, which come before the streams'.
        ``capacity_bytes``: what the driver can give out, −1 for no limit.
        """

    def malloc(self, pair: int, requested_bytes: int) -> memscope._core.caching.Block | None:
        """
        The block given to a request of a (pool, stream) pair; None: out of memory.
        """

    def free(self, block: memscope._core.caching.Block, waits: bool = False) -> None:
        """
        Take an allocation back; with ``waits`` it stays pending for other streams.
        """

    def complete_free(self, block: memscope._core.caching.Block) -> None:
        """Return a pending allocation: the streams that it waited for are done."""

    def address_of(self, block: memscope._core.caching.Block) -> int:
        """Where the program sees the allocation that a block is the first of."""

    def next_part(self, block: memscope._core.caching.Block) -> memscope._core.caching.Block | None:
        """The next block of the same allocation, None after the last."""

    def empty_cache(self) -> None:
        """Wait for all streams and give all unused memory back."""

    def serve(self, op: Annotated[NDArray[numpy.int8], dict(shape=(None,), order='C', device='cpu', writable=False)], row: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], dropped_pool: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], requested_bytes: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], pair: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], keeps_peak_only: bool = False) -> tuple[Annotated[NDArray[numpy.int64], dict(shape=(None, None))], int, int, int, int | None]:
        """
        Serve a program's calls up to the first request that fails. O(log n) in the free blocks for each.

        ``op`` int8 (n,) by ``Op``, ``row`` int32 (n,): what was done, and the allocation it is about (for
        ``EMPTY_POOL`` the pool); ``dropped_pool`` int32 (n,): pool whose owner is gone after it, −1 for none;
        ``requested_bytes``, ``pair`` int64 (rows,): the allocations.

        Returns int64 (4, n + 1): allocated, active, requested and reserved bytes before the first call and after
        each that was served or failed; which of these moments is the first with the most reserved bytes, and with
        ``keeps_peak_only`` int64 (4, 1) of that one alone; reserved bytes that were not in use, at the most and in
        the mean of all moments, rounded down; the position of the call that failed, None if none did.
        """

class Bfc(memscope._core.caching.BlockAllocator):
    def __init__(self, capacity_bytes: int, is_logged: bool, alignment_bytes: int, first_region_bytes: int, max_internal_fragmentation_bytes: int, collects_regions: bool) -> None:
        """
        An allocator that holds nothing and has no pairs of pools but its own, which come before the streams'.
        ``capacity_bytes``: what the driver can give out, −1 for no limit.
        """

    def malloc(self, pair: int, requested_bytes: int) -> memscope._core.caching.Block | None:
        """
        The block given to a request of a (pool, stream) pair; None: out of memory.
        """

    def free(self, block: memscope._core.caching.Block, waits: bool = False) -> None:
        """
        Take an allocation back; with ``waits`` it stays pending for other streams.
        """

    def complete_free(self, block: memscope._core.caching.Block) -> None:
        """Return a pending allocation: the streams that it waited for are done."""

    def address_of(self, block: memscope._core.caching.Block) -> int:
        """Where the program sees the allocation that a block is the first of."""

    def next_part(self, block: memscope._core.caching.Block) -> memscope._core.caching.Block | None:
        """The next block of the same allocation, None after the last."""

    def empty_cache(self) -> None:
        """Wait for all streams and give all unused memory back."""

    def serve(self, op: Annotated[NDArray[numpy.int8], dict(shape=(None,), order='C', device='cpu', writable=False)], row: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], dropped_pool: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], requested_bytes: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], pair: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], keeps_peak_only: bool = False) -> tuple[Annotated[NDArray[numpy.int64], dict(shape=(None, None))], int, int, int, int | None]:
        """
        Serve a program's calls up to the first request that fails. O(log n) in the free blocks for each.

        ``op`` int8 (n,) by ``Op``, ``row`` int32 (n,): what was done, and the allocation it is about (for
        ``EMPTY_POOL`` the pool); ``dropped_pool`` int32 (n,): pool whose owner is gone after it, −1 for none;
        ``requested_bytes``, ``pair`` int64 (rows,): the allocations.

        Returns int64 (4, n + 1): allocated, active, requested and reserved bytes before the first call and after
        each that was served or failed; which of these moments is the first with the most reserved bytes, and with
        ``keeps_peak_only`` int64 (4, 1) of that one alone; reserved bytes that were not in use, at the most and in
        the mean of all moments, rounded down; the position of the call that failed, None if none did.
        """

class Buddy(memscope._core.caching.BlockAllocator):
    def __init__(self, capacity_bytes: int, is_logged: bool, min_block_bytes: int, chunk_bytes: int) -> None:
        """
        An allocator that holds nothing and has no pairs of pools but its own, which come before the streams'.
        ``capacity_bytes``: what the driver can give out, −1 for no limit.
        """

    def malloc(self, pair: int, requested_bytes: int) -> memscope._core.caching.Block | None:
        """
        The block given to a request of a (pool, stream) pair; None: out of memory.
        """

    def free(self, block: memscope._core.caching.Block, waits: bool = False) -> None:
        """
        Take an allocation back; with ``waits`` it stays pending for other streams.
        """

    def complete_free(self, block: memscope._core.caching.Block) -> None:
        """Return a pending allocation: the streams that it waited for are done."""

    def address_of(self, block: memscope._core.caching.Block) -> int:
        """Where the program sees the allocation that a block is the first of."""

    def next_part(self, block: memscope._core.caching.Block) -> memscope._core.caching.Block | None:
        """The next block of the same allocation, None after the last."""

    def empty_cache(self) -> None:
        """Wait for all streams and give all unused memory back."""

    def serve(self, op: Annotated[NDArray[numpy.int8], dict(shape=(None,), order='C', device='cpu', writable=False)], row: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], dropped_pool: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], requested_bytes: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], pair: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], keeps_peak_only: bool = False) -> tuple[Annotated[NDArray[numpy.int64], dict(shape=(None, None))], int, int, int, int | None]:
        """
        Serve a program's calls up to the first request that fails. O(log n) in the free blocks for each.

        ``op`` int8 (n,) by ``Op``, ``row`` int32 (n,): what was done, and the allocation it is about (for
        ``EMPTY_POOL`` the pool); ``dropped_pool`` int32 (n,): pool whose owner is gone after it, −1 for none;
        ``requested_bytes``, ``pair`` int64 (rows,): the allocations.

        Returns int64 (4, n + 1): allocated, active, requested and reserved bytes before the first call and after
        each that was served or failed; which of these moments is the first with the most reserved bytes, and with
        ``keeps_peak_only`` int64 (4, 1) of that one alone; reserved bytes that were not in use, at the most and in
        the mean of all moments, rounded down; the position of the call that failed, None if none did.
        """

class Pool(memscope._core.caching.BlockAllocator):
    def __init__(self, capacity_bytes: int, is_logged: bool, alignment_bytes: int, initial_pool_bytes: int, maximum_pool_bytes: int, returns_memory: bool) -> None:
        """
        An allocator that holds nothing and has no pairs of pools but its own, which come before the streams'.
        ``capacity_bytes``: what the driver can give out, −1 for no limit.
        """

    def malloc(self, pair: int, requested_bytes: int) -> memscope._core.caching.Block | None:
        """
        The block given to a request of a (pool, stream) pair; None: out of memory.
        """

    def free(self, block: memscope._core.caching.Block, waits: bool = False) -> None:
        """
        Take an allocation back; with ``waits`` it stays pending for other streams.
        """

    def complete_free(self, block: memscope._core.caching.Block) -> None:
        """Return a pending allocation: the streams that it waited for are done."""

    def address_of(self, block: memscope._core.caching.Block) -> int:
        """Where the program sees the allocation that a block is the first of."""

    def next_part(self, block: memscope._core.caching.Block) -> memscope._core.caching.Block | None:
        """The next block of the same allocation, None after the last."""

    def empty_cache(self) -> None:
        """Wait for all streams and give all unused memory back."""

    def serve(self, op: Annotated[NDArray[numpy.int8], dict(shape=(None,), order='C', device='cpu', writable=False)], row: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], dropped_pool: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], requested_bytes: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], pair: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], keeps_peak_only: bool = False) -> tuple[Annotated[NDArray[numpy.int64], dict(shape=(None, None))], int, int, int, int | None]:
        """
        Serve a program's calls up to the first request that fails. O(log n) in the free blocks for each.

        ``op`` int8 (n,) by ``Op``, ``row`` int32 (n,): what was done, and the allocation it is about (for
        ``EMPTY_POOL`` the pool); ``dropped_pool`` int32 (n,): pool whose owner is gone after it, −1 for none;
        ``requested_bytes``, ``pair`` int64 (rows,): the allocations.

        Returns int64 (4, n + 1): allocated, active, requested and reserved bytes before the first call and after
        each that was served or failed; which of these moments is the first with the most reserved bytes, and with
        ``keeps_peak_only`` int64 (4, 1) of that one alone; reserved bytes that were not in use, at the most and in
        the mean of all moments, rounded down; the position of the call that failed, None if none did.
        """

class Arena(memscope._core.caching.BlockAllocator):
    def __init__(self, capacity_bytes: int, is_logged: bool, alignment_bytes: int, superblock_bytes: int, initial_arena_bytes: int) -> None:
        """
        An allocator that holds nothing and has no pairs of pools but its own, which come before the streams'.
        ``capacity_bytes``: what the driver can give out, −1 for no limit.
        """

    def malloc(self, pair: int, requested_bytes: int) -> memscope._core.caching.Block | None:
        """
        The block given to a request of a (pool, stream) pair; None: out of memory.
        """

    def free(self, block: memscope._core.caching.Block, waits: bool = False) -> None:
        """
        Take an allocation back; with ``waits`` it stays pending for other streams.
        """

    def complete_free(self, block: memscope._core.caching.Block) -> None:
        """Return a pending allocation: the streams that it waited for are done."""

    def address_of(self, block: memscope._core.caching.Block) -> int:
        """Where the program sees the allocation that a block is the first of."""

    def next_part(self, block: memscope._core.caching.Block) -> memscope._core.caching.Block | None:
        """The next block of the same allocation, None after the last."""

    def empty_cache(self) -> None:
        """Wait for all streams and give all unused memory back."""

    def serve(self, op: Annotated[NDArray[numpy.int8], dict(shape=(None,), order='C', device='cpu', writable=False)], row: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], dropped_pool: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], requested_bytes: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], pair: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], keeps_peak_only: bool = False) -> tuple[Annotated[NDArray[numpy.int64], dict(shape=(None, None))], int, int, int, int | None]:
        """
        Serve a program's calls up to the first request that fails. O(log n) in the free blocks for each.

        ``op`` int8 (n,) by ``Op``, ``row`` int32 (n,): what was done, and the allocation it is about (for
        ``EMPTY_POOL`` the pool); ``dropped_pool`` int32 (n,): pool whose owner is gone after it, −1 for none;
        ``requested_bytes``, ``pair`` int64 (rows,): the allocations.

        Returns int64 (4, n + 1): allocated, active, requested and reserved bytes before the first call and after
        each that was served or failed; which of these moments is the first with the most reserved bytes, and with
        ``keeps_peak_only`` int64 (4, 1) of that one alone; reserved bytes that were not in use, at the most and in
        the mean of all moments, rounded down; the position of the call that failed, None if none did.
        """

    def free_blocks(self, pool: int) -> list[memscope._core.caching.Block]:
        """The free blocks of a pool by their address."""

class Binning(memscope._core.caching.BlockAllocator):
    def __init__(self, capacity_bytes: int, is_logged: bool, min_bin_exponent: int, max_bin_exponent: int, blocks_per_chunk: int, alignment_bytes: int, initial_pool_bytes: int, maximum_pool_bytes: int, returns_memory: bool) -> None:
        """
        An allocator that holds nothing and has no pairs of pools but its own, which come before the streams'.
        ``capacity_bytes``: what the driver can give out, −1 for no limit.
        """

    def malloc(self, pair: int, requested_bytes: int) -> memscope._core.caching.Block | None:
        """
        The block given to a request of a (pool, stream) pair; None: out of memory.
        """

    def free(self, block: memscope._core.caching.Block, waits: bool = False) -> None:
        """
        Take an allocation back; with ``waits`` it stays pending for other streams.
        """

    def complete_free(self, block: memscope._core.caching.Block) -> None:
        """Return a pending allocation: the streams that it waited for are done."""

    def address_of(self, block: memscope._core.caching.Block) -> int:
        """Where the program sees the allocation that a block is the first of."""

    def next_part(self, block: memscope._core.caching.Block) -> memscope._core.caching.Block | None:
        """The next block of the same allocation, None after the last."""

    def empty_cache(self) -> None:
        """Wait for all streams and give all unused memory back."""

    def serve(self, op: Annotated[NDArray[numpy.int8], dict(shape=(None,), order='C', device='cpu', writable=False)], row: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], dropped_pool: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], requested_bytes: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], pair: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], keeps_peak_only: bool = False) -> tuple[Annotated[NDArray[numpy.int64], dict(shape=(None, None))], int, int, int, int | None]:
        """
        Serve a program's calls up to the first request that fails. O(log n) in the free blocks for each.

        ``op`` int8 (n,) by ``Op``, ``row`` int32 (n,): what was done, and the allocation it is about (for
        ``EMPTY_POOL`` the pool); ``dropped_pool`` int32 (n,): pool whose owner is gone after it, −1 for none;
        ``requested_bytes``, ``pair`` int64 (rows,): the allocations.

        Returns int64 (4, n + 1): allocated, active, requested and reserved bytes before the first call and after
        each that was served or failed; which of these moments is the first with the most reserved bytes, and with
        ``keeps_peak_only`` int64 (4, 1) of that one alone; reserved bytes that were not in use, at the most and in
        the mean of all moments, rounded down; the position of the call that failed, None if none did.
        """

    MAX_BINS: Final[int] = ...
    """(arg: object, /) -> int"""

class AsyncPool(memscope._core.caching.BlockAllocator):
    def __init__(self, capacity_bytes: int, is_logged: bool, alignment_bytes: int, page_bytes: int, growth_chunk_bytes: int, release_threshold_bytes: int, reuse_allow_opportunistic: bool, reuse_allow_internal_dependencies: bool, remaps_unused: bool) -> None:
        """
        An allocator that holds nothing and has no pairs of pools but its own, which come before the streams'.
        ``capacity_bytes``: what the driver can give out, −1 for no limit.
        """

    def malloc(self, pair: int, requested_bytes: int) -> memscope._core.caching.Block | None:
        """
        The block given to a request of a (pool, stream) pair; None: out of memory.
        """

    def free(self, block: memscope._core.caching.Block, waits: bool = False) -> None:
        """
        Take an allocation back; with ``waits`` it stays pending for other streams.
        """

    def complete_free(self, block: memscope._core.caching.Block) -> None:
        """Return a pending allocation: the streams that it waited for are done."""

    def address_of(self, block: memscope._core.caching.Block) -> int:
        """Where the program sees the allocation that a block is the first of."""

    def next_part(self, block: memscope._core.caching.Block) -> memscope._core.caching.Block | None:
        """The next block of the same allocation, None after the last."""

    def empty_cache(self) -> None:
        """Wait for all streams and give all unused memory back."""

    def serve(self, op: Annotated[NDArray[numpy.int8], dict(shape=(None,), order='C', device='cpu', writable=False)], row: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], dropped_pool: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], requested_bytes: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], pair: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], keeps_peak_only: bool = False) -> tuple[Annotated[NDArray[numpy.int64], dict(shape=(None, None))], int, int, int, int | None]:
        """
        Serve a program's calls up to the first request that fails. O(log n) in the free blocks for each.

        ``op`` int8 (n,) by ``Op``, ``row`` int32 (n,): what was done, and the allocation it is about (for
        ``EMPTY_POOL`` the pool); ``dropped_pool`` int32 (n,): pool whose owner is gone after it, −1 for none;
        ``requested_bytes``, ``pair`` int64 (rows,): the allocations.

        Returns int64 (4, n + 1): allocated, active, requested and reserved bytes before the first call and after
        each that was served or failed; which of these moments is the first with the most reserved bytes, and with
        ``keeps_peak_only`` int64 (4, 1) of that one alone; reserved bytes that were not in use, at the most and in
        the mean of all moments, rounded down; the position of the call that failed, None if none did.
        """

class Paged(memscope._core.caching.BlockAllocator):
    def __init__(self, capacity_bytes: int, is_logged: bool, page_bytes: int, large_from_bytes: int, alignment_bytes: int, keeps_ranges: bool) -> None:
        """
        An allocator that holds nothing and has no pairs of pools but its own, which come before the streams'.
        ``capacity_bytes``: what the driver can give out, −1 for no limit.
        """

    def malloc(self, pair: int, requested_bytes: int) -> memscope._core.caching.Block | None:
        """
        The block given to a request of a (pool, stream) pair; None: out of memory.
        """

    def free(self, block: memscope._core.caching.Block, waits: bool = False) -> None:
        """
        Take an allocation back; with ``waits`` it stays pending for other streams.
        """

    def complete_free(self, block: memscope._core.caching.Block) -> None:
        """Return a pending allocation: the streams that it waited for are done."""

    def address_of(self, block: memscope._core.caching.Block) -> int:
        """Where the program sees the allocation that a block is the first of."""

    def next_part(self, block: memscope._core.caching.Block) -> memscope._core.caching.Block | None:
        """The next block of the same allocation, None after the last."""

    def empty_cache(self) -> None:
        """Wait for all streams and give all unused memory back."""

    def serve(self, op: Annotated[NDArray[numpy.int8], dict(shape=(None,), order='C', device='cpu', writable=False)], row: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], dropped_pool: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], requested_bytes: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], pair: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], keeps_peak_only: bool = False) -> tuple[Annotated[NDArray[numpy.int64], dict(shape=(None, None))], int, int, int, int | None]:
        """
        Serve a program's calls up to the first request that fails. O(log n) in the free blocks for each.

        ``op`` int8 (n,) by ``Op``, ``row`` int32 (n,): what was done, and the allocation it is about (for
        ``EMPTY_POOL`` the pool); ``dropped_pool`` int32 (n,): pool whose owner is gone after it, −1 for none;
        ``requested_bytes``, ``pair`` int64 (rows,): the allocations.

        Returns int64 (4, n + 1): allocated, active, requested and reserved bytes before the first call and after
        each that was served or failed; which of these moments is the first with the most reserved bytes, and with
        ``keeps_peak_only`` int64 (4, 1) of that one alone; reserved bytes that were not in use, at the most and in
        the mean of all moments, rounded down; the position of the call that failed, None if none did.
        """

class Stitching(memscope._core.caching.BlockAllocator):
    def __init__(self, capacity_bytes: int, is_logged: bool, chunk_bytes: int, fragment_limit_bytes: int, n_idle_most: int, alignment_bytes: int) -> None:
        """
        An allocator that holds nothing and has no pairs of pools but its own, which come before the streams'.
        ``capacity_bytes``: what the driver can give out, −1 for no limit.
        """

    def malloc(self, pair: int, requested_bytes: int) -> memscope._core.caching.Block | None:
        """
        The block given to a request of a (pool, stream) pair; None: out of memory.
        """

    def free(self, block: memscope._core.caching.Block, waits: bool = False) -> None:
        """
        Take an allocation back; with ``waits`` it stays pending for other streams.
        """

    def complete_free(self, block: memscope._core.caching.Block) -> None:
        """Return a pending allocation: the streams that it waited for are done."""

    def address_of(self, block: memscope._core.caching.Block) -> int:
        """Where the program sees the allocation that a block is the first of."""

    def next_part(self, block: memscope._core.caching.Block) -> memscope._core.caching.Block | None:
        """The next block of the same allocation, None after the last."""

    def empty_cache(self) -> None:
        """Wait for all streams and give all unused memory back."""

    def serve(self, op: Annotated[NDArray[numpy.int8], dict(shape=(None,), order='C', device='cpu', writable=False)], row: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], dropped_pool: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], requested_bytes: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], pair: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], keeps_peak_only: bool = False) -> tuple[Annotated[NDArray[numpy.int64], dict(shape=(None, None))], int, int, int, int | None]:
        """
        Serve a program's calls up to the first request that fails. O(log n) in the free blocks for each.

        ``op`` int8 (n,) by ``Op``, ``row`` int32 (n,): what was done, and the allocation it is about (for
        ``EMPTY_POOL`` the pool); ``dropped_pool`` int32 (n,): pool whose owner is gone after it, −1 for none;
        ``requested_bytes``, ``pair`` int64 (rows,): the allocations.

        Returns int64 (4, n + 1): allocated, active, requested and reserved bytes before the first call and after
        each that was served or failed; which of these moments is the first with the most reserved bytes, and with
        ``keeps_peak_only`` int64 (4, 1) of that one alone; reserved bytes that were not in use, at the most and in
        the mean of all moments, rounded down; the position of the call that failed, None if none did.
        """

    @property
    def n_ranges(self) -> int:
        """Stitched ranges."""

    @property
    def n_links(self) -> int:
        """Blocks of all stitched ranges, counted in each."""

    @property
    def n_idle(self) -> int:
        """Stitched ranges that serve no allocation."""

    @property
    def n_marked_blocks(self) -> int:
        """
        Blocks that are part of a range, or of an allocation of several. O(blocks).
        """

    @property
    def n_small_allocs(self) -> int:
        """Segments of small requests taken from the driver."""

    @property
    def n_small_frees(self) -> int: ...

    @property
    def n_stitches(self) -> int: ...

    @property
    def n_splits(self) -> int: ...

    @property
    def n_reuses(self) -> int: ...

    @property
    def n_evictions(self) -> int: ...
