"""Engines of the compiled core, made for one replay and run step by step."""

from __future__ import annotations

import numpy as np

from memscope._core import serving
from memscope.serving._engine import is_padded, make_engine, n_regions
from memscope.serving.managers import manager_named
from memscope.serving.scheduler import SchedulerOptions
from memscope.serving.simulate import KvJob
from tests.serving.small_tables import job, table

REQUESTS = table([(0, 6, 3), (40, 9, 5), (90_000, 2, 4)])


def _engine(one: KvJob) -> serving.Engine:
    memory = manager_named(one.manager).make(one.shape, one.requests, one.options, one.options.max_length)
    capacity = one.kv_bytes // memory.unit_bytes
    is_refused = np.zeros(len(one.requests), np.bool_)
    return make_engine(one.shape, one.requests, memory, capacity, is_refused, one.scheduler, one.cost)


def test_an_engine_that_pauses_goes_on_where_it_was() -> None:
    one = job(REQUESTS, n_tokens=40)
    whole, halting = _engine(one), _engine(one)
    assert whole.run(1000) == serving.Status.DONE
    n_pauses = 0
    while halting.run(1) == serving.Status.PAUSED:
        n_pauses += 1
    assert n_pauses + 1 == whole.counts.n_steps == halting.counts.n_steps
    assert halting.memory_over_time() == whole.memory_over_time()
    for name, column in whole.steps().items():
        assert np.array_equal(halting.steps()[name], column), name


def test_an_engine_holds_nothing_before_its_first_step_and_after_its_last_one() -> None:
    engine = _engine(job(REQUESTS, n_tokens=40))
    assert engine.is_empty
    engine.run(1)
    assert not engine.is_empty
    engine.run(1000)
    assert engine.is_empty
    assert engine.is_refused().tolist() == [0, 0, 0]
    assert engine.counts.n_done == 3


def test_memory_over_time_is_exact_beyond_64_bits() -> None:
    # A unit is 8 bytes: 2⁶⁰ of them, over a step of 70 µs and two more, are more than 2⁶⁶.
    engine = _engine(job(table([(0, 6, 3)]), n_tokens=(1 << 60) // 3))
    engine.run(1000)
    tokens, reservation, internal, external, unclaimed = engine.memory_over_time()
    assert tokens == (6 + 7 + 8) * 70 * 3
    assert (reservation, internal, external) == (0, (2 + 1 + 0) * 70 * 3, 0)
    assert unclaimed > 1 << 66
    assert tokens + internal + unclaimed == (1 << 60) // 3 * 3 * 210


def test_regions_that_fit_at_once_are_powers_of_two_of_granules() -> None:
    # Regions of 9 tokens are blocks of 16: three of them in 50.
    one = job(table([(0, 4, 4)]), "max-length", n_tokens=50, max_length=9)
    memory = manager_named("max-length").make(one.shape, one.requests, one.options, 9)
    assert n_regions(memory, one.kv_bytes // memory.unit_bytes) == 3


def test_only_static_batches_of_managers_that_pad_are_padded() -> None:
    one = job(REQUESTS, "max-length", n_tokens=40, max_length=16)
    shape, requests, options = one.shape, one.requests, one.options
    made = {name: manager_named(name).make(shape, requests, options, 16) for name in ("max-length", "paged")}
    assert is_padded(made["max-length"], SchedulerOptions("static"))
    assert not is_padded(made["max-length"], SchedulerOptions("chunked"))
    assert not is_padded(made["paged"], SchedulerOptions("static"))
