"""
PyTorch's caching allocator, and what every simulated allocator is made of.
"""

from collections.abc import Sequence
import enum
from typing import Annotated

import numpy
from numpy.typing import NDArray


MIN_BLOCK_BYTES: int = 512

HIGHEST_PLACE: int = 4611686018427387904

SMALL_BYTES: int = 1048576

SMALL_SEGMENT_BYTES: int = 2097152

LARGE_SEGMENT_BYTES: int = 20971520

MIN_LARGE_ALLOC_BYTES: int = 10485760

ROUND_LARGE_BYTES: int = 2097152

UNLIMITED: int = 9223372036854775807

N_ROUNDUP_INTERVALS: int = 16

def round_size(requested_bytes: int, roundup_divisions: Sequence[int]) -> int:
    """Rounded size of a request."""

def round_sizes(requested_bytes: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], roundup_divisions: Sequence[int]) -> Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')]:
    """Rounded sizes of int64 (n,) requests."""

def allocation_size(rounded_bytes: int, large_segment_bytes: int) -> int:
    """Bytes of the ``cudaMalloc`` that a rounded request leads to."""

def should_split(block_bytes: int, rounded_bytes: int, max_split_bytes: int, is_expandable: bool) -> bool:
    """
    Whether a free block is split for a rounded request, or handed out whole.
    """

class Op(enum.IntEnum):
    """What a program does; ``FREE`` completes at once."""

    NONE = 0

    MALLOC = 1

    FREE = 2

    FREE_LATER = 3

    COMPLETE = 4

    EMPTY_CACHE = 5

    EMPTY_POOL = 6

    TRY = 7

class BlockState(enum.IntEnum):
    """What a block is at the moment."""

    FREE = 1

    ALLOCATED = 2

    PENDING = 3

    UNMAPPED = 4

class Segment:
    """One ``cudaMalloc``, or the address reservation of an expandable one."""

    @property
    def id(self) -> int:
        """Its slot, used again once it is gone."""

    @property
    def serial(self) -> int:
        """Counts the segments made."""

    @property
    def address(self) -> int: ...

    @property
    def size_bytes(self) -> int: ...

    @property
    def pool(self) -> int:
        """Index of its pool."""

    @property
    def is_expandable(self) -> bool: ...

    @property
    def is_old(self) -> bool:
        """Made before the first event."""

class Block:
    """
    A block of an allocator; RuntimeError once it was merged or given back.
    """

    @property
    def is_alive(self) -> bool:
        """Whether it was neither merged nor given back yet."""

    @property
    def id(self) -> int:
        """Its slot, used again once it is gone."""

    @property
    def address(self) -> int: ...

    @property
    def size_bytes(self) -> int: ...

    @property
    def end(self) -> int:
        """The address behind it."""

    @property
    def requested_bytes(self) -> int: ...

    @property
    def state(self) -> BlockState: ...

    @property
    def pool(self) -> int:
        """Index of its pool."""

    @property
    def tie(self) -> int:
        """What decides between equal sizes before the address."""

    @property
    def is_old(self) -> bool:
        """Made before the first event."""

    @property
    def is_split(self) -> bool:
        """Whether it is not the whole of its segment."""

    @property
    def segment(self) -> Segment: ...

    @property
    def prev(self) -> Block | None: ...

    @property
    def next(self) -> Block | None: ...

    def __eq__(self, other: object | None) -> bool: ...

    def __hash__(self) -> int: ...

class BlockPool:
    """Free memory of one (pool, stream, size class)."""

    @property
    def index(self) -> int:
        """2 k for the small, 2 k + 1 for the large pool of the pair k."""

    @property
    def pool_id(self) -> int:
        """Dense pool id; 0 is the default pool."""

    @property
    def stream(self) -> int:
        """Raw stream handle."""

    @property
    def is_small(self) -> bool: ...

    @property
    def can_split(self) -> bool:
        """Whether its blocks are ever split."""

    @can_split.setter
    def can_split(self, arg: bool, /) -> None: ...

    @property
    def is_releasable(self) -> bool:
        """Whether reclaims give its unused memory back."""

    @is_releasable.setter
    def is_releasable(self, arg: bool, /) -> None: ...

class BlockTable:
    """Blocks by id: int64 (n,) each, ``state`` uint8 by ``BlockState``."""

    @property
    def id(self) -> Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')]: ...

    @property
    def address(self) -> Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')]: ...

    @property
    def size_bytes(self) -> Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')]: ...

    @property
    def requested_bytes(self) -> Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')]: ...

    @property
    def pool(self) -> Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')]:
        """Index of the pool."""

    @property
    def segment(self) -> Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')]:
        """Id of the segment."""

    @property
    def prev(self) -> Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')]:
        """Id of the block before it in its segment, −1 for none."""

    @property
    def next(self) -> Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')]: ...

    @property
    def tie(self) -> Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')]: ...

    @property
    def state(self) -> Annotated[NDArray[numpy.uint8], dict(shape=(None,), order='C')]: ...

class SegmentTable:
    """Segments by id: int64 (n,) each, ``is_expandable`` bool."""

    @property
    def id(self) -> Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')]: ...

    @property
    def address(self) -> Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')]: ...

    @property
    def size_bytes(self) -> Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')]: ...

    @property
    def pool(self) -> Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')]:
        """Index of the pool."""

    @property
    def first_block(self) -> Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')]:
        """Id of its first block."""

    @property
    def serial(self) -> Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')]:
        """Counts the segments made."""

    @property
    def is_expandable(self) -> Annotated[NDArray[numpy.bool_], dict(shape=(None,), order='C')]: ...

class DeviceStats:
    """Counters of an allocator: bytes now and at their peak, calls so far."""

    @property
    def allocated_bytes(self) -> int: ...

    @property
    def active_bytes(self) -> int: ...

    @property
    def requested_bytes(self) -> int: ...

    @property
    def reserved_bytes(self) -> int: ...

    @property
    def peak_allocated_bytes(self) -> int: ...

    @property
    def peak_active_bytes(self) -> int: ...

    @property
    def peak_requested_bytes(self) -> int: ...

    @property
    def peak_reserved_bytes(self) -> int: ...

    @property
    def n_retries(self) -> int:
        """Requests served only after a reclaim."""

    @property
    def n_ooms(self) -> int: ...

    @property
    def n_rejections(self) -> int: ...

    @property
    def n_syncs(self) -> int: ...

    @property
    def n_stream_syncs(self) -> int: ...

    @property
    def n_device_allocs(self) -> int:
        """Calls that took memory from the driver."""

    @property
    def n_device_frees(self) -> int: ...

    @property
    def n_reservations(self) -> int:
        """Address ranges made."""

    @property
    def n_reservations_dropped(self) -> int: ...

    @property
    def n_map_calls(self) -> int: ...

    @property
    def n_unmap_calls(self) -> int: ...

    @property
    def n_mapped_handles(self) -> int: ...

    @property
    def n_unmapped_handles(self) -> int: ...

    @property
    def n_async_allocs(self) -> int: ...

    @property
    def n_async_frees(self) -> int: ...

class TraceEntry:
    """One thing that an allocator did."""

    @property
    def action(self) -> int: ...

    @property
    def address(self) -> int: ...

    @property
    def size_bytes(self) -> int: ...

    @property
    def pool(self) -> int:
        """Index of the pool."""

class BlockAllocator:
    """What every simulated allocator has."""

    def add_pair(self, pool_id: int, stream: int, is_releasable: bool = False) -> None:
        """
        Add the small and the large pool of a (dense pool id, stream handle) pair. Private pools that are not
        releasable keep their memory in reclaims.
        """

    @property
    def n_pairs(self) -> int: ...

    @property
    def pools(self) -> list[BlockPool]:
        """All pools by their index."""

    @property
    def stats(self) -> DeviceStats:
        """A copy of the counters."""

    @property
    def capacity_bytes(self) -> int:
        """What the driver can give out, −1 for no limit."""

    @capacity_bytes.setter
    def capacity_bytes(self, arg: int, /) -> None: ...

    def place_as(self, size_bytes: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], address: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)]) -> None:
        """
        Place segments where those of a recording lay, for as long as the same sizes are asked for in the same order:
        int64 (n,) each.
        """

    @property
    def device_used_bytes(self) -> int: ...

    def live_segments(self) -> list[Segment]:
        """All segments by id, one by one."""

    def blocks(self) -> BlockTable:
        """All blocks, those without memory too."""

    def segments(self) -> SegmentTable:
        """All segments."""

    def free_blocks(self, pool: int) -> list[Block]:
        """The free blocks of a pool in their order."""

    def unmapped_blocks(self, pool: int) -> list[Block]:
        """The unmapped ranges of a pool in their order."""

    def pending_blocks(self) -> list[Block]:
        """The blocks that wait for other streams, the longest waiting first."""

    def drain_trace(self) -> list[TraceEntry]:
        """What happened since the last call, if it is logged."""

class DeviceCachingAllocator(BlockAllocator):
    def __init__(self, tie_rule: int, capacity_bytes: int, base: int, gap_bytes: int, is_logged: bool, roundup_divisions: Sequence[int], max_split_bytes: int | None, max_non_split_rounding_bytes: int, large_segment_bytes: int, is_expandable: bool, allowed_bytes: int | None, garbage_collection_bytes: int | None, rejection_bytes: int | None, reservation_bytes: int, reservation_alignment_bytes: int, reservation_gap_bytes: int) -> None:
        """
        An allocator that holds nothing, and has no pools yet. ``roundup_divisions``: 16 numbers; None is no limit.
        """

    def malloc(self, pair: int, requested_bytes: int) -> Block | None:
        """
        The block given to a request of a (pool, stream) pair; None: out of memory.
        """

    def free(self, block: Block, waits: bool = False) -> None:
        """
        Take an allocation back; with ``waits`` it stays pending for other streams.
        """

    def complete_free(self, block: Block) -> None:
        """Return a pending allocation: the streams that it waited for are done."""

    def address_of(self, block: Block) -> int:
        """Where the program sees the allocation that a block is the first of."""

    def next_part(self, block: Block) -> Block | None:
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
    def allowed_bytes(self) -> int:
        """What PyTorch may reserve."""

    @allowed_bytes.setter
    def allowed_bytes(self, arg: int, /) -> None: ...

    @property
    def garbage_collection_bytes(self) -> int | None:
        """Reserved bytes from which garbage is collected, None for never."""

    @garbage_collection_bytes.setter
    def garbage_collection_bytes(self, arg: int | None, /) -> None: ...

    def find_free_block(self, pool: int, rounded_bytes: int) -> Block | None:
        """
        The free block that a request takes, None for none; nothing is changed.
        """

    def alloc_from(self, block: Block, requested_bytes: int) -> Block:
        """Give a free block, or its front, to the program."""

    def alloc_in_new_segment(self, pool: int, address: int, segment_bytes: int, requested_bytes: int) -> Block:
        """
        A ``cudaMalloc`` at that address, and a block of it given to the program.
        """

    def count_call(self, pool: int) -> None:
        """Count a request for the ages of garbage collection."""

    def count_oom(self) -> None: ...

    @property
    def gc_calls(self) -> int:
        """Requests counted for the ages of garbage collection."""

    @gc_calls.setter
    def gc_calls(self, arg: int, /) -> None: ...

    @property
    def n_segments_made(self) -> int: ...

    def first_free_block(self, pool: int, least_bytes: int) -> Block | None:
        """
        The first free block of a pool that is at least that large, None for none.
        """

    def next_free_block(self, block: Block) -> Block | None:
        """
        The free block after one in the order of its pool, None after the last.
        """

    def free_block_at(self, address: int) -> Block | None:
        """The free block that begins at an address, None for none. O(blocks)."""

    def free_block_holding(self, address: int) -> Block | None:
        """The free block that an address lies in, None for none. O(blocks)."""

    def unsplit_blocks(self, pool: int) -> list[Block]:
        """
        The free blocks of a pool that are whole ``cudaMalloc`` segments, in their order.
        """

    def gc_age(self, block: Block) -> int:
        """
        Requests counted for garbage collection since a free block became free.
        """

    def release_block(self, block: Block) -> None:
        """``cudaFree`` of the segment that a free block is the whole of."""

    @property
    def release_order(self) -> list[int]:
        """
        Indices of the pools in the order in which a reclaim gives their memory back.
        """

    @property
    def reservation_bytes(self) -> int:
        """Address space of one expandable segment, before rounding to handles."""

    @reservation_bytes.setter
    def reservation_bytes(self, arg: int, /) -> None: ...

    def handle_size(self, pool: int) -> int:
        """Bytes of one handle in the expandable segments of a pool."""

    def reservation_size(self, pool: int) -> int:
        """Bytes of address space in a new reservation of a pool: whole handles."""

    def add_reservation(self, pool: int, address: int) -> Block:
        """Reserve addresses; returns the unmapped block."""

    def find_expandable_block(self, pool: int, rounded_bytes: int) -> Block | None:
        """
        Where a request could grow: an unmapped range, or the free block before it; None for none.
        """

    def map_block(self, block: Block, n_bytes: int) -> bool:
        """
        Map whole handles at the start of an unmapped range; whether the driver had them.
        """

    def unmap_block(self, block: Block) -> bool:
        """Unmap the handles inside a free block; whether there were any."""

    def whole_handles(self, block: Block) -> tuple[int, int]:
        """The whole handles inside a block, as addresses from and to."""

    def shorten_reservation(self, segment: Segment, end: int) -> bool:
        """
        Let a reservation end earlier, if nothing is mapped beyond that; whether it could.
        """

    def follow(self, action: Annotated[NDArray[numpy.int8], dict(shape=(None,), order='C', device='cpu', writable=False)], address: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], size_bytes: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], pair: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], row: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], requests_recorded: bool, position: int) -> tuple[int, FollowStatus]:
        """
        Do recorded events from a position on, until one differs from what the allocator does or needs a
        decision. ``action`` int8 (n,), ``address``, ``size_bytes``, ``pair``, ``row`` int64 (n,): −1 for a pair
        that is not known, or no allocation; ``requests_recorded``: are there ``free_requested`` events.

        Returns the first event that was not done, and why. O(log n) in the free blocks for each.
        """

    def set_n_rows(self, n_rows: int) -> None:
        """
        Make room for so many allocations of the program, without a block each.
        """

    def block_of(self, row: int) -> Block | None:
        """The block of an allocation, None if it has none (yet, or any more)."""

    def set_block_of(self, row: int, block: Block) -> None: ...

    def ids_of_rows(self, rows: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)]) -> Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')]:
        """int64 (n,): ids of the blocks of allocations, −1 for none."""

    def old_rows(self, rows: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)]) -> Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')]:
        """Those of int64 (n,) allocations whose block is in use and an old one."""

    def add_old_segment(self, pool: int, address: int, size_bytes: int, is_expandable: bool) -> Block:
        """
        A segment that stood before the first event; returns its block, whose parts are to be settled.
        """

    def settle_old_block(self, tail: Block, size_bytes: int, state: BlockState, requested_bytes: int) -> Block | None:
        """
        Give the front of a segment's last block a state, and count it; returns the rest, None for nothing.
        """

    def widen_block(self, block: Block, n_bytes: int) -> None:
        """Let a block in use reach into the free block after it."""

class FollowStatus(enum.Enum):
    """Why following a recording stopped."""

    FOLLOWED = 0

    NEEDS_DECISION = 1
    """A kind that is decided outside, or an unknown pool."""

    FITS_ELSEWHERE = 2
    """The allocator takes a block at another address."""

    FITS_NOWHERE = 3
    """A free block was taken, the allocator finds none."""

    FITS_ALREADY = 4
    """The driver was asked, the allocator finds a free block."""

    SEGMENT_SIZE_DIFFERS = 5

    NOT_IN_USE = 6

    SIZE_DIFFERS = 7

    ACTIVE_BYTES_DIFFER = 8
