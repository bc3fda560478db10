"""The sets by address against sorted lists."""

import random

import numpy as np

from memscope._kernels import address_sets
from memscope._kernels import caching_layout as at
from memscope._kernels.caching_blocks import next_address
from memscope.replay.caching.arrays import new_arrays, with_lanes
from memscope.replay.config import CachingAllocatorConfig
from memscope.trace.schema import TieRule


def start(n_blocks):
    arrays = new_arrays(CachingAllocatorConfig(), tie_rule=TieRule.ADDRESS, is_logged=False)
    arrays = with_lanes(arrays, [(0, 0)], is_private_releasable=True)
    blocks = [int(at.new_segment(arrays, 1, int(next_address(arrays, 1)), 1, 0, at.FREE)) for _ in range(n_blocks)]
    return arrays, np.zeros(address_sets.PATH_ROWS, np.int64), blocks


def test_set_answers_like_a_sorted_list():
    rng = random.Random(3)
    arrays, path, blocks = start(50)
    address, size = arrays.blocks[:, at.B_ADDRESS], arrays.blocks[:, at.B_SIZE]
    members = []
    for _ in range(600):
        block = rng.choice(blocks)
        if block in members:
            members.remove(block)
            address_sets.remove_by_address(arrays, path, 1, block)
        else:
            size[block] = rng.randrange(1, 40)
            members.append(block)
            address_sets.insert_by_address(arrays, path, 1, block)
        members.sort(key=lambda one: address[one])
        wanted = rng.randrange(1, 45)
        assert address_sets.first_fit(arrays, 1, wanted) == next((b for b in members if size[b] >= wanted), at.NONE)
        place = int(address[rng.choice(blocks)]) + rng.choice((-1, 0, 1))
        assert address_sets.first_from(arrays, 1, place) == next((b for b in members if address[b] >= place), at.NONE)
        below = [b for b in members if address[b] < place]
        assert address_sets.last_below(arrays, 1, place) == (below[-1] if below else at.NONE)
        assert arrays.lanes[0, at.L_ADDRESS_ROOT] == at.NONE
