"""The arena model: against its twin, which is written as RMM's is, and by hand."""

import random
from bisect import bisect

import pytest
from hypothesis import given

from memscope.device.limits import Limits
from memscope.errors import UsageError
from memscope.replay.caching.allocator import SimulatedOutOfMemoryError
from memscope.replay.models._arena import ARENA
from tests.properties import examples
from tests.replay.models.model_steps import CAPACITIES, STEPS, Program, layout, long_steps, run_both
from tests.replay.models.modelled_allocator import ModelledAllocator
from tests.replay.models.naive_models import NaiveArena

KiB, MiB = 1 << 10, 1 << 20


@examples(200)
@given(steps=STEPS)
def test_serves_as_its_twin(steps):
    run_both(ARENA, NaiveArena(), steps)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_serves_a_long_program_as_its_twin(seed):
    run_both(ARENA, NaiveArena(), long_steps(seed))


@examples(50)
@given(steps=STEPS)
def test_serves_as_its_twin_with_other_superblocks(steps):
    run_both(ARENA, NaiveArena(superblock=16 * KiB), steps, superblock_bytes=16 * KiB)


@examples(50)
@given(steps=STEPS, capacity=CAPACITIES)
def test_stays_sound_where_memory_ends(steps, capacity):
    program = Program(ARENA, capacity, initial_arena_bytes=8 * MiB)
    for step in steps:
        program.do(step)
    program.finish()


def test_small_requests_of_a_stream_share_a_superblock():
    allocator = ModelledAllocator(ARENA)
    allocator.malloc(1000)
    allocator.malloc(2000, stream=7)
    allocator.malloc(3000)
    assert layout(allocator) == [[1024, 3072, -(MiB - 4096)], [2048, -(MiB - 2048)]]


def test_first_fit_takes_the_lowest_address_not_the_best_size():
    allocator = ModelledAllocator(ARENA)
    wide, _, narrow, _ = (allocator.malloc(size) for size in (8 * KiB, 256, 4 * KiB, 256))
    allocator.free(wide)
    allocator.free(narrow)
    assert allocator.malloc(4 * KiB) == wide


class FirstFit:
    """Gaps of an endless address space, in order."""

    def __init__(self, base):
        self.gaps = [(base, 1 << 62)]

    def take(self, size):
        place, (address, end) = next((i, gap) for i, gap in enumerate(self.gaps) if gap[1] - gap[0] >= size)
        self.gaps[place : place + 1] = [(address + size, end)] if address + size < end else []
        return address

    def give_back(self, address, size):
        place = bisect(self.gaps, (address, 0))
        start, end, first, last = address, address + size, place, place
        if place and self.gaps[place - 1][1] == start:
            start, first = self.gaps[place - 1][0], place - 1
        if place < len(self.gaps) and self.gaps[place][0] == end:
            end, last = self.gaps[place][1], place + 1
        self.gaps[first:last] = [(start, end)]


# One superblock for everything, in a stream's arena; or one for each request, in the global arena.
@pytest.mark.parametrize("superblock_bytes", [1 << 30, 256])
def test_first_fit_among_thousands_of_free_blocks(superblock_bytes):
    rng, allocator = random.Random(7), ModelledAllocator(ARENA, superblock_bytes=superblock_bytes)
    live = [allocator.malloc(512)]
    gaps = FirstFit(live[0] + 512)
    sizes = {live[0]: 512}
    most_gaps = 0
    for step in range(8000):
        if step < 4000 or rng.random() < 0.5:
            size = 256 * rng.randrange(2, 200)
            address = allocator.malloc(size)
            assert address == gaps.take(size)
            live.append(address)
            sizes[address] = size
        else:
            address = live.pop(rng.randrange(len(live)))
            allocator.free(address)
            gaps.give_back(address, sizes.pop(address))
        most_gaps = max(most_gaps, len(gaps.gaps))
    allocator.check()
    assert most_gaps > 600


def test_large_requests_come_from_the_global_arena_and_join_there():
    allocator = ModelledAllocator(ARENA)
    first, second, third = (allocator.malloc(3 * MiB, stream=stream) for stream in (0, 7, 0))
    assert allocator.stats.reserved_bytes == 9 * MiB
    allocator.free(first)
    allocator.free(second)
    assert layout(allocator) == [[-6 * MiB], [3 * MiB]]
    assert allocator.malloc(6 * MiB) == first
    allocator.free(third)
    assert allocator.malloc(5 * MiB) == third  # 3 MiB at the end of the extent, and 2 new ones
    assert allocator.stats.reserved_bytes == 11 * MiB


def test_superblock_is_not_split_where_less_than_a_superblock_would_be_left():
    allocator = ModelledAllocator(ARENA)
    first, _ = allocator.malloc(3 * MiB), allocator.malloc(2 * MiB)
    allocator.free(first)
    allocator.malloc(2 * MiB + 512 * KiB)
    assert layout(allocator) == [[2 * MiB + 512 * KiB, -512 * KiB], [2 * MiB]]
    allocator.malloc(256 * KiB)  # a stream's arena takes the superblock that is in use already
    assert layout(allocator)[0] == [2 * MiB + 512 * KiB, 256 * KiB, -256 * KiB]


def test_freed_superblocks_stay_in_their_arena_until_a_request_fails():
    allocator = ModelledAllocator(ARENA, limits=Limits(4 * MiB))
    small = [allocator.malloc(MiB) for _ in range(4)]
    for address in small:
        allocator.free(address)
    assert layout(allocator) == [[-MiB]] * 4
    allocator.malloc(4 * MiB)
    assert allocator.stats.n_retries == 1
    assert layout(allocator) == [[4 * MiB]]
    with pytest.raises(SimulatedOutOfMemoryError):
        allocator.malloc(1)


def test_end_of_the_extent_counts_where_the_device_is_nearly_full():
    allocator = ModelledAllocator(ARENA, limits=Limits(6 * MiB))
    allocator.free(allocator.malloc(3 * MiB))
    allocator.malloc(5 * MiB)  # only 2 MiB are new
    assert allocator.stats.n_retries == 0
    assert layout(allocator) == [[5 * MiB]]


def test_arena_is_one_allocation_of_the_driver():
    allocator = ModelledAllocator(ARENA, initial_arena_bytes=16 * MiB)
    addresses = [allocator.malloc(5 * MiB) for _ in range(4)]
    assert allocator.stats.reserved_bytes == 20 * MiB
    allocator.empty_cache()
    for address in addresses:
        allocator.free(address)
    allocator.empty_cache()
    assert allocator.stats.reserved_bytes == 0
    # Two emptied caches, and four frees that the global arena serves.
    assert allocator.driver_calls.counts == {
        "cudaMalloc": 1,
        "cudaFree": 1,
        "cudaDeviceSynchronize": 2,
        "cudaStreamSynchronize": 4,
    }


@pytest.mark.parametrize(
    "wrong", [{"alignment_bytes": 3}, {"superblock_bytes": 1000}, {"initial_arena_bytes": -256}], ids=str
)
def test_parameters_without_sense_are_refused(wrong):
    with pytest.raises(UsageError):
        ARENA.new_allocator(**wrong)
