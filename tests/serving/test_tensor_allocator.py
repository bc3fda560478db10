"""The allocator below caches that are tensors: every address is that of the simulated caching allocator."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memscope._core import serving
from memscope.device.limits import Limits
from memscope.replay.caching.allocator import CachingAllocator, SimulatedOutOfMemoryError
from memscope.replay.caching.settings import AddressRule
from memscope.trace.schema import TieRule
from memscope.units import GiB, KiB, MiB
from tests.properties import examples

BASE = AddressRule().base
N_PLACES = 12


class Act(NamedTuple):
    """New tensors for some places; none of no bytes: theirs are freed."""

    start: int
    end: int
    n_bytes: int


class Scale(NamedTuple):
    """What all sizes are multiples of, the capacities, and sizes that a program is likely to ask for, in bytes."""

    granularity: int
    capacities: tuple[int, int]
    sizes: tuple[int, ...]


SCALES = {
    "small tensors": Scale(512, (2 * MiB, 8 * MiB), (512, 3 * KiB, 100 * KiB, 700 * KiB, MiB)),
    "of no whole block": Scale(1500, (22 * MiB, 30 * MiB), (1500, 30_000, 900_000, 1_500_000)),
    "either side of a mebibyte": Scale(10 * KiB, (20 * MiB, 26 * MiB), (10 * KiB, 900 * KiB, MiB, 1200 * KiB)),
    "segments of their own": Scale(96 * KiB, (60 * MiB, 300 * MiB), (MiB, 5 * MiB, 10 * MiB, 14 * MiB)),
    "classes of several sizes": Scale(768, (100 * MiB, 900 * MiB), (MiB, 31 * MiB, 33 * MiB, 34 * MiB, 70 * MiB)),
    "whole mebibytes": Scale(4 * MiB, (100 * MiB, 900 * MiB), (4 * MiB, 12 * MiB, 36 * MiB)),
    "beyond the last class": Scale(512, (300 * GiB, 3000 * GiB), (GiB, 120 * GiB, 130 * GiB, 140 * GiB, 300 * GiB)),
}


class Twin:
    """The same by calls of the simulated caching allocator."""

    def __init__(self, capacity: int) -> None:
        self.allocator = CachingAllocator(limits=Limits(capacity), tie_rule=TieRule.SEGMENT_AGE)
        self.addresses = [0] * N_PLACES

    def replace(self, start: int, end: int, n_bytes: int) -> int:
        for place in range(start, end):
            try:
                new = self.allocator.malloc(n_bytes)
            except SimulatedOutOfMemoryError:
                return place - start
            self.allocator.free(self.addresses[place])
            self.addresses[place] = new
        return end - start

    def free(self, start: int, end: int) -> None:
        for place in range(start, end):
            self.allocator.free(self.addresses[place])
            self.addresses[place] = 0


def compare(scale: Scale, capacity: int, acts: list[Act]) -> int:
    """Check every answer, address and count after each act; how often unused memory was given back."""
    fast = serving.TensorPlaces(capacity=capacity, granularity=scale.granularity, n_places=N_PLACES)
    twin = Twin(capacity)
    for act in acts:
        if act.n_bytes:
            assert fast.replace(*act) == twin.replace(*act)
        else:
            fast.free(act.start, act.end)
            twin.free(act.start, act.end)
        assert fast.addresses().tolist() == [address - BASE if address else -1 for address in twin.addresses]
        stats = twin.allocator.stats
        assert fast.active_bytes == stats.active_bytes
        assert fast.peak_reserved_bytes == stats.peak_reserved_bytes
        assert fast.n_retries == stats.n_retries
    return fast.n_retries


@st.composite
def programs(draw: st.DrawFn) -> tuple[Scale, int, list[Act]]:
    scale = draw(st.sampled_from(list(SCALES.values())))
    capacity = draw(st.integers(*scale.capacities))
    n_most = math.ceil(max(scale.sizes) * 1.2 / scale.granularity)
    likely = st.sampled_from([math.ceil(size / scale.granularity) for size in scale.sizes])
    near = st.builds(lambda n, more: max(1, n + more), likely, st.integers(-3, 3))
    counts = st.one_of(near, near, st.integers(1, n_most))
    sizes = st.one_of(counts, counts, counts, st.just(0)).map(lambda n: n * scale.granularity)
    ranges = st.tuples(st.integers(0, N_PLACES), st.integers(0, N_PLACES)).map(sorted)
    acts = st.lists(st.builds(lambda ends, size: Act(*ends, size), ranges, sizes), max_size=40)
    return scale, capacity, draw(acts)


@examples(150)
@given(programs())
def test_every_address_is_the_simulated_allocators(program: tuple[Scale, int, list[Act]]) -> None:
    compare(*program)


def _random_program(scale: Scale, rng: np.random.Generator, n_acts: int) -> list[Act]:
    """Groups of places grow by a little, as caches do, and are freed at times."""
    bounds = [0, *sorted(rng.integers(0, N_PLACES, 3).tolist()), N_PLACES]
    sizes = [0] * (len(bounds) - 1)
    acts = []
    for _ in range(n_acts):
        group = int(rng.integers(len(sizes)))
        if sizes[group] and rng.random() < 0.1:
            sizes[group] = 0
        elif not sizes[group] or rng.random() < 0.05:
            sizes[group] = math.ceil(int(rng.choice(scale.sizes)) * rng.uniform(0.3, 1) / scale.granularity)
        else:
            sizes[group] += int(rng.integers(1, 4))
        acts.append(Act(bounds[group], bounds[group + 1], sizes[group] * scale.granularity))
    return acts


@pytest.mark.parametrize("scale", SCALES.values(), ids=list(SCALES))
def test_long_programs_of_growing_tensors_are_the_simulated_allocators(scale: Scale) -> None:
    n_retries = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        capacity = int(rng.integers(*scale.capacities))
        n_retries += compare(scale, capacity, _random_program(scale, rng, 400))
    assert n_retries > 0


def test_places_that_are_none_are_refused() -> None:
    tensors = serving.TensorPlaces(capacity=40 * MiB, granularity=512, n_places=2)
    for start, end in ((-1, 1), (1, 3), (2, 1)):
        with pytest.raises(IndexError):
            tensors.replace(start, end, 512)
        with pytest.raises(IndexError):
            tensors.free(start, end)
