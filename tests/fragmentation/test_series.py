"""The series against the slow twin: one measured state for each event."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memscope.fragmentation.metrics import measure_fragmentation
from memscope.fragmentation.series import FragmentationSeries, MetricsTable, OverallSeries, fragmentation_series
from memscope.lifetimes.device import DeviceLifetimes
from memscope.replay.caching.allocator import SimulatedOutOfMemoryError
from memscope.trace.builder import TraceBuilder
from memscope.trace.metadata import TraceMetadata
from memscope.trace.open import open_trace
from memscope.trace.schema import NONE_ID, Action
from memscope.trace.trace import Trace
from tests.naive_layout import random_layout
from tests.oracles import ORACLE, REAL, needs_shared
from tests.properties import examples
from tests.replay.recordings import Recorder
from tests.training_trace import training_trace

MiB = 1 << 20
SHIPPED = sorted((Path(__file__).resolve().parents[2] / "traces").glob("*.memscope"))
ORACLES = (
    "combo_exp_gc",
    "context_alloc",
    "graphs_default",
    "graphs_exp",
    "midrun_default",
    "midrun_exp",
    "oom_observer",
    "pools_exp",
    "ring_truncated",
    "ring_truncated_exp",
    "streams_default",
    "two_gpus",
)


def series_of(trace: Trace, device: int) -> FragmentationSeries:
    series = fragmentation_series(DeviceLifetimes(trace, device))
    assert series is not None
    return series


SUMMED = (
    "reserved_bytes",
    "active_bytes",
    "requested_bytes",
    "free_bytes",
    "free_in_split_segments_bytes",
    "releasable_bytes",
    "rounding_bytes",
    "largest_free_block_bytes",
    "n_segments",
    "n_active_blocks",
    "n_free_blocks",
)


def check_against_states(trace: Trace, every: int = 1) -> None:
    for device in trace.devices:
        lifetimes = DeviceLifetimes(trace, device)
        series = series_of(trace, device)
        columns = {name: getattr(series.overall, name) for name in SUMMED}
        for event in (-1, *range(lifetimes.first_event, lifetimes.end_event, every), lifetimes.last_event):
            expected, found = measure_fragmentation(trace, lifetimes.state_at(event)), series.at(event)
            assert found.overall == expected.overall, event
            row = series.overall.row_of(event)
            assert {name: int(column[row]) for name, column in columns.items()} == {
                name: getattr(expected.overall, name) for name in SUMMED
            }, event
            # Groups of equally many free bytes may stand in any order.
            assert sorted(map(repr, found.groups)) == sorted(map(repr, expected.groups)), event
            assert [g.free_bytes for g in found.groups] == [g.free_bytes for g in expected.groups]


@examples(15)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_naive_layout_is_followed_exactly(seed: int) -> None:
    check_against_states(random_layout(seed, 60).trace())


@examples(20)
@given(
    seed=st.integers(0, 2**32 - 1),
    conf=st.sampled_from(["", "expandable_segments:True", "max_split_size_mb:40", "large_segment_size_mb:40"]),
    late=st.booleans(),
    has_pool_ids=st.booleans(),
)
def test_a_simulated_run_is_followed_exactly(seed: int, conf: str, late: bool, has_pool_ids: bool) -> None:
    recorder = Recorder(conf, has_pool_ids=has_pool_ids)
    pools = ((0, 0), (0, 1)) if has_pool_ids else ((0, 0),)
    if late:
        recorder.workload(seed, 60, streams=(0, 7), pools=pools, p_wait=0.1)
        recorder.start_recording()
    recorder.workload(seed + 1, 90, streams=(0, 7), pools=pools, p_wait=0.2, p_empty=0.03)
    check_against_states(recorder.trace())


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_trace_is_followed_exactly(path: Path) -> None:
    trace = open_trace(path)
    check_against_states(trace, every=1 if trace.n_events < 1000 else 5)


@needs_shared
@pytest.mark.parametrize("name", ORACLES)
def test_a_recording_of_pytorch_is_followed_exactly(name: str) -> None:
    trace = open_trace(ORACLE / "torch-2.11.0" / f"{name}.pickle.gz")
    check_against_states(trace, every=max(1, trace.n_events // 300))


@needs_shared
@pytest.mark.parametrize("name", ["lm-train-torch2.6", "lm-windows-midlife", "lm-train-midlife-torch2.10"])
def test_a_recording_of_a_real_gpu_is_followed_exactly(name: str) -> None:
    trace = open_trace(REAL / f"{name}.pickle.gz")
    check_against_states(trace, every=max(1, trace.n_events // 300))


def test_columns_follow_from_each_other_and_from_the_usage() -> None:
    trace = training_trace()
    lifetimes, series = DeviceLifetimes(trace, 0), series_of(trace, 0)
    table, usage = series.overall, lifetimes.usage
    dense = np.repeat(np.arange(len(table)), np.concatenate([[1], series.n_events_of_rows()[1:]]))
    dense = np.concatenate([np.zeros(series.n_events_of_rows()[0], np.int64), dense])
    assert np.array_equal(table.reserved_bytes[dense], usage.reserved_bytes)
    assert np.array_equal(table.active_bytes[dense], usage.active_bytes)
    assert np.array_equal(table.requested_bytes[dense], usage.requested_bytes)
    assert np.array_equal(table.free_bytes, table.free_in_split_segments_bytes + table.releasable_bytes)
    assert series.n_events_of_rows().sum() == lifetimes.n_events
    for name in ("reserved_bytes", "active_bytes", "releasable_bytes", "n_free_blocks"):
        at_end = [getattr(group.table, name)[-1] for group in series.groups]
        assert sum(at_end) == getattr(table, name)[-1]


def test_fractions_are_nan_where_there_is_nothing_to_divide_by() -> None:
    builder = TraceBuilder()
    address = 1 << 40
    builder.add_event(Action.SEGMENT_ALLOC, address=address, size_bytes=2 * MiB)
    builder.add_event(Action.ALLOC, address=address, size_bytes=MiB)
    segment = builder.add_segment(address=address, size_bytes=2 * MiB, is_large=False)
    builder.add_block(segment, address=address, size_bytes=MiB, requested_bytes=MiB, state=0)
    builder.add_block(segment, address=address + MiB, size_bytes=MiB, requested_bytes=0, state=2)
    series = series_of(builder.build(TraceMetadata(source="synthetic", alloc_conf="")), 0)
    assert series.overall.event.tolist() == [-1, 0, 1]
    assert np.isnan(series.overall.utilisation_frac[0])
    assert series.overall.utilisation_frac[1:].tolist() == [0.0, 0.5]
    (group,) = series.groups
    assert np.isnan(group.table.scatter_frac[0])
    assert group.table.scatter_frac[1:].tolist() == [0.0, 0.0]


def test_there_is_no_series_where_segments_were_not_recorded() -> None:
    builder = TraceBuilder()
    builder.add_event(Action.ALLOC, address=1 << 40, size_bytes=MiB)
    trace = builder.build(TraceMetadata(source="synthetic", has_segment_events=False))
    assert fragmentation_series(DeviceLifetimes(trace, 0)) is None


@examples(30)
@given(seed=st.integers(0, 2**32 - 1), total=st.sampled_from([0, 3, 9, 11, 15, 21, 40, 200]))
def test_the_largest_request_succeeds_and_one_byte_more_does_not(seed: int, total: int) -> None:
    def after_a_program() -> Recorder:
        recorder = Recorder(total=total * MiB + 2 * MiB)
        recorder.workload(seed, 60, p_empty=0.0)
        return recorder

    recorder = after_a_program()
    largest = int(series_of(recorder.trace(), 0).largest_request_bytes(recorder.total)[-1])
    if largest:
        assert recorder.allocator.malloc(largest)
    with pytest.raises(SimulatedOutOfMemoryError):
        after_a_program().allocator.malloc(largest + 1)


def test_200_000_events_take_about_a_second() -> None:
    recorder = Recorder()
    recorder.workload(1, 110_000, streams=(0, 7), p_wait=0.3)
    lifetimes = DeviceLifetimes(recorder.trace(), 0)
    assert lifetimes.n_events > 150_000
    fragmentation_series(lifetimes)
    started = time.perf_counter()
    fragmentation_series(lifetimes)
    assert time.perf_counter() - started < 3


@pytest.mark.parametrize("seed", range(6))
def test_the_largest_cached_request_is_the_largest_free_block_of_the_default_pool(seed: int) -> None:
    trace = random_layout(seed, 80).trace()
    lifetimes, series = DeviceLifetimes(trace, 0), series_of(trace, 0)
    cached = series.largest_cached_request_bytes()
    for event in (-1, *range(lifetimes.first_event, lifetimes.end_event, 5)):
        groups = measure_fragmentation(trace, lifetimes.state_at(event)).groups
        free = [
            min(group.largest_free_block_bytes, MiB) if group.size_class == "small" else group.largest_free_block_bytes
            for group in groups
            if group.pool in (None, (0, 0))
        ]
        assert cached[series.overall.row_of(event)] == max(free, default=0)


@needs_shared
def test_free_memory_of_private_pools_is_that_of_their_groups() -> None:
    trace = open_trace(ORACLE / "torch-2.11.0" / "pools_default.pickle.gz")
    lifetimes, series = DeviceLifetimes(trace, 0), series_of(trace, 0)
    private = series.free_in_private_pools_bytes()
    for event in range(lifetimes.first_event, lifetimes.end_event, 997):
        groups = measure_fragmentation(trace, lifetimes.state_at(event)).groups
        expected = sum(group.free_bytes for group in groups if group.pool not in (None, (0, 0)))
        assert private[series.overall.row_of(event)] == expected
    assert private.max() > 0


@pytest.mark.parametrize("seed", range(20))
def test_the_highest_of_many_groups_is_that_of_each_event(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tables = []
    for _ in range(int(rng.integers(1, 60))):
        events = np.unique(rng.integers(0, 100, int(rng.integers(0, 12))))
        event = np.append(NONE_ID, events).astype(np.int32)
        columns = {name: rng.integers(0, 1000, len(event)) for name in MetricsTable.COLUMNS if name != "event"}
        tables.append(MetricsTable(event=event, **{name: of.astype(np.int64) for name, of in columns.items()}))
    overall = OverallSeries(tables)
    largest = overall.largest_free_block_bytes
    for event in range(-1, 101):
        of_each = [table.largest_free_block_bytes[table.row_of(event)] for table in tables]
        assert largest[overall.row_of(event)] == max(of_each)
        free = [table.free_bytes[table.row_of(event)] for table in tables[::2]]
        assert overall.sum_of(tables[::2], "free_bytes")[overall.row_of(event)] == sum(free)
