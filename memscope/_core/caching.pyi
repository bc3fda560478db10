"""
PyTorch's caching allocator, and what every simulated allocator is made of.
"""

import enum
from typing import Annotated

import numpy
from numpy.typing import NDArray


class Op(enum.IntEnum):
    """What a program does; ``FREE`` completes at once."""

    NONE = 0

    MALLOC = 1

    FREE = 2

    FREE_LATER = 3

    COMPLETE = 4

    EMPTY_CACHE = 5

    EMPTY_POOL = 6

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
    def is_expandable(self) -> bool: ...

    @property
    def is_old(self) -> bool:
        """Made before the first event."""

class Block:
    """
    A block of an allocator; RuntimeError once it was merged or given back.
    """

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

    def __eq__(self, arg: object, /) -> bool: ...

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
    def num_alloc_retries(self) -> int:
        """Requests served only after a reclaim."""

    @property
    def num_ooms(self) -> int: ...

    @property
    def num_rejections(self) -> int: ...

    @property
    def num_sync_all_streams(self) -> int: ...

    @property
    def num_stream_syncs(self) -> int: ...

    @property
    def num_device_alloc(self) -> int:
        """Calls that took memory from the driver."""

    @property
    def num_device_free(self) -> int: ...

    @property
    def num_reservations(self) -> int:
        """Address ranges made."""

    @property
    def num_reservations_dropped(self) -> int: ...

    @property
    def num_map_calls(self) -> int: ...

    @property
    def num_unmap_calls(self) -> int: ...

    @property
    def num_mapped_handles(self) -> int: ...

    @property
    def num_unmapped_handles(self) -> int: ...

    @property
    def num_async_allocs(self) -> int: ...

    @property
    def num_async_frees(self) -> int: ...

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

    @property
    def device_used_bytes(self) -> int: ...

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
