"""Allocator settings: read as PyTorch reads them, printed back, refused in one line."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memscope.errors import UsageError
from memscope.replay.config import CachingAllocatorConfig
from memscope.trace.schema import TieRule
from memscope.units import GiB, MiB
from tests.replay.recordings import Recorder


def test_empty_string_is_the_default():
    assert CachingAllocatorConfig.parse("") == CachingAllocatorConfig()
    assert CachingAllocatorConfig().to_conf() == ""


def test_every_option_is_read():
    config = CachingAllocatorConfig.parse(
        " max_split_size_mb: 128, max_non_split_rounding_mb:40,garbage_collection_threshold:0.6,"
        "expandable_segments:True,large_segment_size_mb:20.5,per_process_memory_fraction:0.25,"
        "throw_on_cudamalloc_oom:True,expandable_segments_reserve:40G,pinned_num_register_threads:8"
    )
    assert config == CachingAllocatorConfig(
        max_split_bytes=128 * MiB,
        max_non_split_rounding_bytes=40 * MiB,
        gc_threshold_frac=0.6,
        is_expandable=True,
        large_segment_bytes=20 * MiB,
        memory_fraction=0.25,
        throws_on_malloc_oom=True,
        reserve=40 * GiB,
    )


def test_single_number_of_divisions_covers_every_size():
    assert CachingAllocatorConfig.parse("roundup_power2_divisions:8").roundup_divisions == (8,) * 16


def test_list_of_divisions_fills_below_the_first_and_after_the_last():
    config = CachingAllocatorConfig.parse("roundup_power2_divisions:[256:1,512:2,1024:4,>:8]")
    assert config.roundup_divisions == (1,) * 9 + (2, 4) + (8,) * 5


def test_older_releases_let_the_rest_replace_the_last_size():
    conf = "roundup_power2_divisions:[4:2,16:4,64:1,>:8]"
    new = CachingAllocatorConfig.parse(conf).roundup_divisions
    old = CachingAllocatorConfig.parse(conf, tie_rule=TieRule.ADDRESS).roundup_divisions
    assert new == (2, 2, 2, 0, 4, 0, 1, *(8,) * 9)
    assert old == (2, 2, 2, 0, 4, 0, 8, *(8,) * 9)


@pytest.mark.parametrize(
    "conf",
    [
        "max_split_size_mb:19",
        "max_split_size_mb:x",
        "max_split_size_mb:nan",
        "large_segment_size_mb:10",
        "expandable_segments:true",
        "garbage_collection_threshold:1.0",
        "garbage_collection_threshold:0",
        "per_process_memory_fraction:1.5",
        "per_process_memory_fraction:nan",
        "roundup_power2_divisions:3",
        "roundup_power2_divisions:[256:3]",
        "roundup_power2_divisions:[100:2]",
        "roundup_power2_divisions:[256]",
        "roundup_power2_divisions:[256:2",
        "backend:other",
        "expandable_segments_reserve:-1",
        "no_such_option:1",
        "expandable_segments",
        "=",
    ],
)
def test_bad_string_is_refused_in_one_line(conf):
    with pytest.raises(UsageError) as caught:
        CachingAllocatorConfig.parse(conf)
    assert "\n" not in str(caught.value)


@given(
    st.builds(
        CachingAllocatorConfig,
        max_split_bytes=st.none() | st.integers(20, 4096).map(lambda n: n * MiB),
        max_non_split_rounding_bytes=st.integers(20, 100).map(lambda n: n * MiB),
        roundup_divisions=st.lists(st.sampled_from([0, 1, 2, 4, 64]), min_size=16, max_size=16).map(tuple),
        gc_threshold_frac=st.sampled_from([0.0, 0.25, 0.5, 0.9]),
        is_expandable=st.booleans(),
        large_segment_bytes=st.integers(11, 200).map(lambda n: n * MiB),
        memory_fraction=st.sampled_from([0.125, 0.5, 1.0]),
        throws_on_malloc_oom=st.booleans(),
        reserve=st.none() | st.just(0.5) | st.just(8 * GiB),
    )
)
def test_printed_settings_read_back_equal(config):
    assert CachingAllocatorConfig.parse(config.to_conf()) == config


def test_recorded_table_wins_over_the_string():
    recorder = Recorder("roundup_power2_divisions:[4:2,>:8]")
    recorder.allocator.malloc(1000)
    trace = recorder.trace()
    settings = trace.metadata.allocator_settings | {"roundup_power2_divisions": {"1": 4}}
    changed = dataclasses.replace(trace, metadata=dataclasses.replace(trace.metadata, allocator_settings=settings))
    assert CachingAllocatorConfig.from_trace(changed).roundup_divisions == (4, *(0,) * 15)


def test_unreadable_recorded_string_is_kept_not_refused():
    recorder = Recorder()
    recorder.allocator.malloc(1000)
    recorder.conf = "future_option:1"
    assert CachingAllocatorConfig.from_trace(recorder.trace()).unmodelled == ("future_option:1",)


def test_recorded_memory_fraction_is_the_device_s_own():
    recorder = Recorder()
    recorder.allocator.malloc(1000)
    trace = recorder.trace()
    metadata = dataclasses.replace(trace.metadata, memory_fraction={0: 0.5})
    trace = dataclasses.replace(trace, metadata=metadata)
    assert CachingAllocatorConfig.from_trace(trace, 0).memory_fraction == 0.5
    assert CachingAllocatorConfig.from_trace(trace, 1).memory_fraction == 1.0
