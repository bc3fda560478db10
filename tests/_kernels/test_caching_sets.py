"""The free sets against sorted lists, and the room that a request may need."""

import random

import numpy as np

from memscope._kernels import caching_layout as at
from memscope._kernels import free_sets
from memscope._kernels.caching import malloc
from memscope._kernels.caching_blocks import insert_free, next_address
from memscope.replay.caching.arrays import grow, new_arrays, with_lanes
from memscope.replay.config import CachingAllocatorConfig
from memscope.trace.schema import TieRule


def empty_arrays():
    arrays = new_arrays(CachingAllocatorConfig(), tie_rule=TieRule.SEGMENT_AGE, is_logged=False)
    return with_lanes(arrays, [(0, 0)], is_private_releasable=True)


def key(arrays, block):
    return tuple(arrays.blocks[block, [at.B_SIZE, at.B_TIE, at.B_ADDRESS]].tolist())


def test_set_answers_like_a_sorted_list():
    arrays, rng = empty_arrays(), random.Random(1)
    blocks = [
        int(at.new_segment(arrays, 1, int(next_address(arrays, 1)), 512 * rng.randrange(1, 12), 0, at.FREE))
        for _ in range(60)
    ]
    members = []
    for _ in range(500):
        block = rng.choice(blocks)
        if block in members:
            members.remove(block)
            assert free_sets.remove(arrays, 1, at.L_FREE_ROOT, block)
        else:
            members.append(block)
            insert_free(arrays, block)
        members.sort(key=lambda b: key(arrays, b))
        size = 512 * rng.randrange(0, 14)
        expected = next((b for b in members if arrays.blocks[b, at.B_SIZE] >= size), at.NONE)
        assert free_sets.first_of_size(arrays, 1, size) == expected
        below = [b for b in members if arrays.blocks[b, at.B_SIZE] < size]
        assert free_sets.last_below_size(arrays, 1, size) == (below[-1] if below else at.NONE)
        assert free_sets.first(arrays, 1, at.L_FREE_ROOT) == (members[0] if members else at.NONE)
        some = rng.choice(blocks)
        after = [b for b in members if key(arrays, b) > key(arrays, some)]
        before = [b for b in members if key(arrays, b) < key(arrays, some)]
        assert free_sets.following(arrays, 1, at.L_FREE_ROOT, some) == (after[0] if after else at.NONE)
        assert free_sets.preceding(arrays, 1, at.L_FREE_ROOT, some) == (before[-1] if before else at.NONE)


def test_removing_what_is_not_a_member_is_told():
    arrays = empty_arrays()
    block = at.new_segment(arrays, 1, int(next_address(arrays, 1)), 512, 0, at.FREE)
    assert not free_sets.remove(arrays, 1, at.L_FREE_ROOT, block)


def test_request_without_room_changes_nothing_and_says_so():
    arrays = empty_arrays()._replace(blocks=np.zeros((4, at.N_BLOCK_COLUMNS), np.int64))
    before = arrays.counters.copy()
    assert malloc(arrays, 0, 1000) == at.STATUS_GROW
    assert np.array_equal(arrays.counters, before)
    assert malloc(grow(arrays), 0, 1000) >= 0


def test_growing_always_makes_the_room_that_is_asked_for():
    for is_expandable in (False, True):
        config = CachingAllocatorConfig(is_expandable=is_expandable)
        arrays = new_arrays(config, tie_rule=TieRule.ADDRESS)
        for n_blocks in range(0, 5000, 7):
            arrays.counters[at.C_N_BLOCKS] = arrays.counters[at.C_N_SEGMENTS] = n_blocks
            arrays = grow(arrays)
            assert at.has_room(arrays)
