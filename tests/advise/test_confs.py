"""The settings that a search tries, and those that are known to harm."""

import pytest

from memscope.advise.confs import grid, harmful_combinations, neighbours, torch_release, variable_name
from memscope.replay.config import CachingAllocatorConfig
from memscope.trace.metadata import TraceMetadata


@pytest.mark.parametrize("release", [None, (2, 0), (2, 6), (2, 12)])
@pytest.mark.parametrize("can_collect_garbage", [False, True])
def test_the_grid_holds_readable_settings_that_the_release_knows_and_none_that_harms(release, can_collect_garbage):
    confs = grid(release, can_collect_garbage=can_collect_garbage)
    assert len(set(confs)) == len(confs)
    assert confs[0] == ""
    for conf in confs:
        config = CachingAllocatorConfig.parse(conf)
        assert config.to_conf() == CachingAllocatorConfig.parse(config.to_conf()).to_conf()
        assert not [text for text in harmful_combinations(config) if "memory fraction" not in text]
    assert any("expandable" in conf for conf in confs) == (release is None or release >= (2, 1))
    assert any("large_segment" in conf for conf in confs) == (release is not None and release >= (2, 11))
    assert any("garbage" in conf for conf in confs) == can_collect_garbage


def test_neighbours_are_other_settings_and_include_leaving_an_option_out():
    found = neighbours("max_split_size_mb:64,roundup_power2_divisions:4", (2, 12))
    assert "max_split_size_mb:64" in found
    assert "roundup_power2_divisions:4" in found
    assert "roundup_power2_divisions:4,max_split_size_mb:48" in found
    for conf in found:
        CachingAllocatorConfig.parse(conf)


@pytest.mark.parametrize(
    ("conf", "words"),
    [
        ("expandable_segments:True,max_split_size_mb:64", "pytorch#123548"),
        ("expandable_segments:True,garbage_collection_threshold:0.8", "never frees expandable"),
        ("garbage_collection_threshold:0.8", "does nothing without a memory fraction"),
        ("throw_on_cudamalloc_oom:True", "before cached memory is given back"),
    ],
)
def test_known_harm_is_named(conf, words):
    assert any(words in text for text in harmful_combinations(CachingAllocatorConfig.parse(conf)))


def test_ordinary_settings_are_not_warned_of():
    for conf in ("", "expandable_segments:True", "max_split_size_mb:128", "roundup_power2_divisions:4"):
        assert harmful_combinations(CachingAllocatorConfig.parse(conf)) == ()


def test_the_variable_is_the_one_that_the_release_reads():
    def name(version: str | None, **extra: bool) -> str:
        return variable_name(TraceMetadata(source="torch-snapshot", torch_version=version, extra=extra))

    assert name("2.8") == name("2.5–2.7") == "PYTORCH_CUDA_ALLOC_CONF"
    assert name("2.9") == name(None) == name("2.9", rocm=True) == "PYTORCH_ALLOC_CONF"
    assert name("2.8", rocm=True) == "PYTORCH_HIP_ALLOC_CONF"


@pytest.mark.parametrize(
    ("version", "release"), [("2.13.0+cu128", (2, 13)), ("2.5–2.7", (2, 5)), ("nightly", None), (None, None)]
)
def test_the_release_is_read_from_the_recorded_version(version, release):
    assert torch_release(TraceMetadata(source="cuda", torch_version=version)) == release


def test_garbage_is_collected_under_a_fraction_that_the_program_set():
    config = CachingAllocatorConfig.parse("garbage_collection_threshold:0.6")
    assert harmful_combinations(config)
    assert not harmful_combinations(config, 0.25)
    assert harmful_combinations(config, 1.0)
