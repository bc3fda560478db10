"""Every model stays sound when its arrays run full, and serves a recording as it serves the calls one by one."""

import random

import pytest

from memscope._core import caching
from memscope.device.limits import Limits
from memscope.lifetimes.device import DeviceLifetimes
from memscope.replay.caching.allocator import SimulatedOutOfMemoryError
from memscope.replay.models.modelled import replay_modelled
from memscope.replay.models.registry import MODELS
from memscope.replay.requests import requests_of
from tests.replay.models.modelled_allocator import ModelledAllocator
from tests.replay.recordings import Recorder

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


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_a_recording_is_served_as_its_calls_one_by_one(model):
    recorder = Recorder("", total=80 << 30)
    recorder.workload(4, 400, streams=(0, 7))
    lifetimes = DeviceLifetimes(recorder.trace(), 0)
    result = replay_modelled(lifetimes, model)
    allocator, address_of_row = ModelledAllocator(model), {}
    requests = requests_of(lifetimes)
    for op, row in zip(requests.op.tolist(), requests.row.tolist(), strict=True):
        if op == caching.Op.MALLOC:
            stream = requests.pairs[int(requests.pair[row])][1]
            address_of_row[row] = allocator.malloc(int(requests.requested_bytes[row]), stream)
        elif op in (caching.Op.FREE, caching.Op.FREE_LATER):
            allocator.free(address_of_row[row], waits=op == caching.Op.FREE_LATER)
        elif op == caching.Op.COMPLETE:
            allocator.complete_free(address_of_row[row])
        elif op == caching.Op.EMPTY_CACHE:
            allocator.empty_cache()
        else:
            assert op == caching.Op.NONE
    assert allocator.stats.peak_reserved_bytes == result.peak_reserved_bytes
    assert allocator.stats.peak_active_bytes == result.peak_active_bytes
    assert allocator.driver_calls == result.driver_calls
    assert result.notes[-len(model.notes) :] == model.notes


def test_what_stood_before_the_recording_fails_before_its_first_event_even_if_it_is_freed_later():
    recorder = Recorder("", total=80 << 30)
    address = recorder.allocator.malloc(40 * MiB)
    recorder.start_recording()
    recorder.allocator.free(address)
    recorder.allocator.malloc(MiB)
    lifetimes = DeviceLifetimes(recorder.trace(), 0)
    for model in MODELS:
        result = replay_modelled(lifetimes, model, Limits(16 * MiB))
        assert result.oom is not None
        assert (result.oom.event, result.oom.requested_bytes) == (-1, 40 * MiB)
        assert len(result.usage.allocated_bytes) == 1
