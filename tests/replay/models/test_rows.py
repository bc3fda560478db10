"""Every block model stays sound when its arrays run full, and after a request that cannot be served."""

import random

import pytest

from memscope.device.limits import Limits
from memscope.replay.allocator import SimulatedOutOfMemoryError
from memscope.replay.models.modelled import ModelledAllocator
from memscope.replay.models.registry import MODELS

MiB = 1 << 20


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_thousands_of_live_blocks_outgrow_the_arrays(model):
    rng = random.Random(5)
    allocator = ModelledAllocator(model)
    live = []
    for _ in range(6000):
        if rng.random() < 0.75:
            live.append(allocator.malloc(rng.choice((300, 5000, 70_000, 3 * MiB)), stream=rng.choice((0, 7))))
        else:
            allocator.free(live.pop(rng.randrange(len(live))))
    allocator.check()
    assert len(set(live)) == len(live) > 2500
    for address in live:
        allocator.free(address)
    allocator.check()
    allocator.empty_cache()
    allocator.check()
    assert allocator.stats.reserved_bytes == 0


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_failed_request_leaves_a_sound_state(model):
    allocator = ModelledAllocator(model, limits=Limits(300 * MiB))
    kept = [allocator.malloc(7 * MiB, stream=stream) for stream in (0, 7, 0)]
    allocator.free(kept.pop())
    active = allocator.stats.active_bytes
    with pytest.raises(SimulatedOutOfMemoryError):
        allocator.malloc(400 * MiB)
    allocator.check()
    assert allocator.stats.active_bytes == active
    assert allocator.stats.n_ooms == 1
    kept.append(allocator.malloc(7 * MiB, stream=7))
    assert len(set(kept)) == 3
