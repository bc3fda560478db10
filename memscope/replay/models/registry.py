"""The modelled allocators: what each is, and which driver calls its counters mean."""

from __future__ import annotations

from memscope._kernels import caching_layout as at
from memscope._kernels.policy_binning import MAX_BINS
from memscope._kernels.policy_cuda_malloc import CudaMalloc
from memscope.replay.driver_calls import DriverCalls
from memscope.replay.models.block_policies import new_arena, new_async_pool, new_bfc, new_binning, new_buddy, new_pool
from memscope.replay.models.modelled import Model, Policy
from memscope.trace.tables import Int64Array


def _mallocs_and_frees(policy: Policy, counters: Int64Array) -> DriverCalls:
    """Every take and give is one ``cudaMalloc`` or ``cudaFree``; a reclaim waits for the device."""
    return DriverCalls(
        {
            "cudaMalloc": int(counters[at.C_N_DEVICE_ALLOCS]),
            "cudaFree": int(counters[at.C_N_DEVICE_FREES]),
            "cudaDeviceSynchronize": int(counters[at.C_N_SYNCS]),
        }
    )


def _arena_calls(policy: Policy, counters: Int64Array) -> DriverCalls:
    """The global arena is one allocation; a free of a large request waits for its stream."""
    taken_and_given = _mallocs_and_frees(policy, counters).counts
    return DriverCalls({**taken_and_given, "cudaStreamSynchronize": int(counters[at.C_N_STREAM_SYNCS])})


def _pool_calls(policy: Policy, counters: Int64Array) -> DriverCalls:
    """Every request and free is a call, and what the pool does below is counted too."""
    return DriverCalls(
        {
            "cudaMallocAsync": int(counters[at.C_N_ASYNC_ALLOCS]),
            "cudaFreeAsync": int(counters[at.C_N_ASYNC_FREES]),
            "cudaDeviceSynchronize": int(counters[at.C_N_SYNCS]),
            "cuMemAddressReserve": int(counters[at.C_N_RESERVATIONS]),
            "cuMemAddressFree": int(counters[at.C_N_RESERVATIONS_DROPPED]),
            "cuMemCreate": int(counters[at.C_N_DEVICE_ALLOCS]),
            "cuMemMap": int(counters[at.C_N_MAPPED_HANDLES]),
            "cuMemSetAccess": int(counters[at.C_N_MAP_CALLS]),
            "cuMemUnmap": int(counters[at.C_N_UNMAPPED_HANDLES]),
            "cuMemRelease": int(counters[at.C_N_DEVICE_FREES]),
        }
    )


CUDA_MALLOC = Model(
    name="cuda-malloc",
    summary="no caching: a cudaMalloc for every request",
    source="CUDA runtime API",
    notes=("cuda-malloc: requests of 1 MiB or more take whole pages of 2 MiB, smaller ones share pages",),
    new_policy=CudaMalloc,
    calls=_mallocs_and_frees,
)

BFC = Model(
    name="bfc",
    summary="best fit with coalescing in regions that double",
    source="TensorFlow and XLA, BFCAllocator with allow_growth",
    notes=(
        "bfc: one allocator serves all streams, and memory freed on one is reused on another without waiting",
        "bfc: the memory of the device is its only limit; without one its regions double freely",
        "bfc: an emptied cache gives unused regions back, and the next region is as large as what is left",
    ),
    new_policy=new_bfc,
    calls=_mallocs_and_frees,
    n_extra_pairs=1,
)

BUDDY = Model(
    name="buddy",
    summary="binary buddies: blocks are powers of two",
    source="Knuth, The Art of Computer Programming, volume 1, section 2.5",
    notes=(
        "buddy: the driver is asked for 32 MiB at once, or the next power of two of a larger request",
        "buddy: one allocator serves all streams, and memory freed on one is reused on another without waiting",
    ),
    new_policy=new_buddy,
    calls=_mallocs_and_frees,
    merges_neighbours=False,
    n_extra_pairs=1,
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
    new_policy=new_pool,
    calls=_mallocs_and_frees,
    mixes_lanes=True,
)

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

BINNING = Model(
    name="binning",
    summary="bins of 256 KiB to 4 MiB over a pool that doubles",
    source="RMM, binning_memory_resource over pool_memory_resource",
    notes=(
        "binning: requests below 256 KiB take a block of 256 KiB, as in RMM: it is meant for large tables",
        "binning: a bin takes its first chunk of 128 blocks when it is first used, where RMM takes all at the start",
        "binning: an emptied cache gives unused chunks and memory of the pool back, where RMM keeps them",
    ),
    new_policy=new_binning,
    calls=_mallocs_and_frees,
    merges_neighbours=False,
    mixes_lanes=True,
    n_extra_pairs=MAX_BINS // 2,
)

ASYNC_POOL = Model(
    name="async-pool",
    summary="the driver's stream-ordered pool: cudaMallocAsync for every request",
    source="CUDA stream-ordered memory allocator, as PyTorch's backend cudaMallocAsync sets it up",
    notes=(
        "async-pool: how the driver places and grows is not published: best fit, and growth by 32 MiB, are assumed",
        "async-pool: every stream reuses completed frees at once, as PyTorch allows the pool to",
        "async-pool: unused memory is mapped again, or given back, only by what was grown at once",
    ),
    new_policy=new_async_pool,
    calls=_pool_calls,
    mixes_lanes=True,
    n_extra_pairs=1,
)

MODELS: tuple[Model, ...] = (CUDA_MALLOC, BFC, BUDDY, POOL_COALESCING, ARENA, BINNING, ASYNC_POOL)
