"""The allocator's arithmetic, on numbers that real PyTorch gave; sets of free blocks; blocks as Python holds them."""

from __future__ import annotations

import gc
import random

import numpy as np
import pytest

from memscope._core import caching
from memscope.replay.caching._invariants import check_allocator
from memscope.replay.caching.settings import add_pairs, new_allocator
from memscope.replay.config import CachingAllocatorConfig
from memscope.trace.schema import TieRule

UNLIMITED = caching.UNLIMITED

MiB = 1 << 20


def divisions(n: int) -> list[int]:
    return [n] * caching.N_ROUNDUP_INTERVALS


@pytest.mark.parametrize(
    ("requested", "plain", "segment", "by_4", "by_8"),
    [
        (1, 512, 2, 512, 512),
        (511, 512, 2, 512, 512),
        (513, 1024, 2, 1024, 1024),
        (1025, 1536, 2, 1536, 1536),
        (4097, 4608, 2, 5120, 4608),
        (65_537, 66_048, 2, 81_920, 73_728),
        (1_048_576, 1_048_576, 2, 1_048_576, 1_048_576),
        (1_048_577, 1_049_088, 20, 1_310_720, 1_179_648),
        (10_485_248, 10_485_248, 20, 10_485_760, 10_485_760),
        (10_485_249, 10_485_760, 10, 10_485_760, 10_485_760),
        (12_000_000, 12_000_256, 12, 12_582_912, 12_582_912),
        (20_971_521, 20_972_032, 22, 25_165_824, 23_068_672),
        (1_073_741_825, 1_073_742_336, 1026, 1_342_177_280, 1_207_959_552),
    ],
)
def test_rounding_and_segment_sizes(requested: int, plain: int, segment: int, by_4: int, by_8: int) -> None:
    assert caching.round_size(requested, divisions(0)) == plain
    assert caching.allocation_size(plain, caching.LARGE_SEGMENT_BYTES) == segment * MiB
    assert caching.round_size(requested, divisions(4)) == by_4
    assert caching.round_size(requested, divisions(8)) == by_8


@pytest.mark.parametrize(
    ("block", "rounded", "max_split", "expandable", "splits"),
    [
        (20 * MiB, 19 * MiB, UNLIMITED, False, False),  # the rest is exactly 1 MiB
        (20 * MiB, 19 * MiB - 512, UNLIMITED, False, True),
        (2 * MiB, 2 * MiB - 512, UNLIMITED, False, False),  # a large request: the rest is only 512
        (2 * MiB, MiB, UNLIMITED, False, True),
        (1024, 512, UNLIMITED, False, True),
        (512, 512, UNLIMITED, False, False),
        (20 * MiB, 20 * MiB - 512, UNLIMITED, True, True),
        (200 * MiB, 128 * MiB, 128 * MiB, False, False),
    ],
)
def test_the_split_rule(block: int, rounded: int, max_split: int, expandable: bool, splits: bool) -> None:
    assert caching.should_split(block, rounded, max_split, expandable) == splits


def test_sizes_of_many_requests_are_rounded_like_those_of_each() -> None:
    sizes = np.array([1, 513, 65_537, 12_000_000], np.int64)
    assert caching.round_sizes(sizes, divisions(4)).tolist() == [
        caching.round_size(size, divisions(4)) for size in sizes.tolist()
    ]


def allocator_of(tie_rule: TieRule = TieRule.SEGMENT_AGE, *, is_expandable: bool = False):
    allocator = new_allocator(CachingAllocatorConfig(is_expandable=is_expandable), tie_rule=tie_rule)
    add_pairs(allocator, [(0, 0)])
    return allocator


@pytest.mark.parametrize("tie_rule", list(TieRule))
def test_sets_answer_like_sorted_lists_however_many_free_blocks_there_are(tie_rule: TieRule) -> None:
    """Thousands of free blocks, of few sizes: the set is many chunks, which are halved and joined on the way."""
    allocator, rng = allocator_of(tie_rule), random.Random(1)
    live: list[caching.Block] = []
    for n_live in (6_000, 300, 3_000, 0):
        while len(live) != n_live:
            if len(live) < n_live and rng.random() < 0.7:
                block = allocator.malloc(0, 512 * rng.randrange(1, 40))
                assert block is not None
                live.append(block)
            elif live:
                k = rng.randrange(len(live))
                live[k], live[-1] = live[-1], live[k]
                allocator.free(live.pop())
        check_allocator(allocator)
        free = allocator.free_blocks(0)
        for size in range(512, 512 * 60, 512 * 7):
            first = next((block for block in free if block.size_bytes >= size), None)
            assert allocator.first_free_block(0, size) == first
        assert [allocator.next_free_block(block) for block in free] == [*free[1:], None]
    assert {block.size_bytes for block in allocator.free_blocks(0)} == {2 * MiB}


def test_a_block_that_is_gone_says_so() -> None:
    allocator = allocator_of()
    first, second = (allocator.malloc(0, 1000) for _ in range(2))
    assert first is not None
    assert second is not None
    assert (first.next, second.prev) == (second, first)
    assert first != second
    allocator.free(first)
    # It survives the merge with what is free beside it; what was there does not.
    rest = second.next
    assert rest is not None
    allocator.free(second)
    assert second.is_alive
    assert not first.is_alive
    assert not rest.is_alive
    with pytest.raises(RuntimeError, match="merged"):
        _ = first.size_bytes
    with pytest.raises(RuntimeError, match="merged"):
        allocator.free(first)
    # Its slot is used again, for another block.
    again = allocator.malloc(0, 1000)
    assert again is not None
    assert not first.is_alive
    assert again != first


def test_a_block_keeps_its_allocator() -> None:
    block = allocator_of().malloc(0, 1000)
    gc.collect()
    assert block is not None
    assert block.next is not None
    assert block.size_bytes + block.next.size_bytes == block.segment.size_bytes


def test_what_makes_no_sense_is_refused() -> None:
    allocator, other = allocator_of(), allocator_of()
    block = allocator.malloc(0, 1000)
    assert block is not None
    rest = block.next
    assert rest is not None
    for wrong in (
        lambda: other.free(block),
        lambda: allocator.complete_free(block),
        lambda: allocator.free(rest),
        lambda: allocator.alloc_from(block, 1000),
        lambda: allocator.alloc_from(rest, 3 * MiB),
        lambda: allocator.release_block(rest),
        lambda: allocator.unmap_block(rest),
        lambda: allocator.map_block(rest, 2 * MiB),
        lambda: allocator.widen_block(rest, 512),
    ):
        with pytest.raises(RuntimeError):
            wrong()
    for wrong in (lambda: allocator.malloc(1, 1000), lambda: allocator.free_blocks(2), lambda: allocator.block_of(0)):
        with pytest.raises(IndexError):
            wrong()
    check_allocator(allocator)


def test_calls_that_contradict_each_other_harm_nothing() -> None:
    """Two frees of one allocation, a completion of what does not wait, rows and acts that do not exist."""
    allocator, op = allocator_of(), caching.Op
    acts = [op.FREE, op.MALLOC, op.COMPLETE, op.MALLOC, op.FREE_LATER, op.FREE_LATER, op.FREE, op.FREE, op.COMPLETE]

    def serve(acts, row):
        rows, none = np.full(len(acts), row), np.full(len(acts), -1)
        return allocator.serve(np.array(acts, np.int8), rows, none, np.array([1000]), np.array([0]))

    usage, *_, failed_call = serve(acts, 0)
    assert failed_call is None
    check_allocator(allocator)
    # The first allocation was forgotten at the completion; the second's free began to wait, and then completed.
    assert usage[1].tolist() == [0, 0, 1024, 1024, 2048, 2048, 1024, 1024, 1024, 1024]
    for act, row in ((op.MALLOC, 1), (op.MALLOC, -1), (op.FREE, 1)):
        with pytest.raises(IndexError):
            serve([act], row)
    with pytest.raises(ValueError, match="no call of that number"):
        serve([9], 0)
    check_allocator(allocator)


def placed(*segments: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    sizes, addresses = zip(*segments, strict=True)
    return np.array(sizes, np.int64) * MiB, np.array(addresses, np.int64)


def segment_addresses(allocator: caching.DeviceCachingAllocator, *requested_mib: int) -> list[int]:
    return [allocator.malloc(0, n * MiB).address for n in requested_mib]


def an_allocator() -> caching.DeviceCachingAllocator:
    allocator = new_allocator(CachingAllocatorConfig(), tie_rule=TieRule.ADDRESS)
    add_pairs(allocator, [(0, 0)])
    return allocator


def test_segments_lie_where_those_of_a_recording_lay_while_the_same_are_made() -> None:
    allocator = an_allocator()
    allocator.place_as(*placed((30, 900 << 30), (30, 500 << 30), (40, 100 << 30), (50, 200 << 30)))
    assert segment_addresses(allocator, 30, 30) == [900 << 30, 500 << 30]
    # Another size than the recording's: from here on they lie above all of its places.
    above, further = segment_addresses(allocator, 60, 50)
    assert above >= (900 << 30) + 30 * MiB
    assert further == above + 60 * MiB


def test_of_two_blocks_of_one_size_the_recorded_places_decide() -> None:
    allocator = an_allocator()
    allocator.place_as(*placed((30, 900 << 30), (30, 500 << 30)))
    first, second = (allocator.malloc(0, 30 * MiB) for _ in range(2))
    allocator.free(first)
    allocator.free(second)
    assert allocator.malloc(0, 30 * MiB).address == 500 << 30


def test_a_place_is_taken_again_only_once_it_was_given_back() -> None:
    allocator = an_allocator()
    allocator.place_as(*placed((30, 100 << 30), (30, 100 << 30), (30, 100 << 30)))
    block = allocator.malloc(0, 30 * MiB)
    allocator.free(block)
    allocator.empty_cache()
    assert segment_addresses(allocator, 30) == [100 << 30]
    # The recording had given it back by now, this allocator has not.
    assert segment_addresses(allocator, 30)[0] > 100 << 30
    check_allocator(allocator)


@pytest.mark.parametrize("segment", [(0, 0), (-1, 0), (1, -1), (1, 1 << 62), (1 << 43, 0)])
def test_places_where_nothing_can_lie_are_refused(segment: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="lies where none can"):
        an_allocator().place_as(*placed(segment))
