"""Settings from the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from memscope.capture.environment import (
    CaptureEnvironment,
    allocator_settings,
    rank_path,
    read_environment,
    tie_rule_of,
)
from memscope.errors import UsageError
from memscope.trace.schema import TieRule


def test_nothing_set_records_everywhere_under_the_default_name() -> None:
    found = read_environment({})
    assert found == CaptureEnvironment()
    assert found.records_here
    assert found.output_path("train.memscope") == Path("train.memscope")
    assert read_environment({"MEMSCOPE_RANKS": "", "MEMSCOPE_TRIGGER": "", "MEMSCOPE_OUT": "", "RANK": ""}) == found


def test_everything_set_is_read(tmp_path: Path) -> None:
    found = read_environment(
        {
            "MEMSCOPE_OUT": str(tmp_path / "a.memscope"),
            "MEMSCOPE_RANKS": "0, 3-5",
            "MEMSCOPE_MAX_EVENTS": "1000",
            "MEMSCOPE_TRIGGER": "signal",
            "RANK": "4",
            "LOCAL_RANK": "1",
            "WORLD_SIZE": "8",
        }
    )
    assert (found.max_events, found.trigger, found.rank, found.local_rank, found.world_size) == (
        1000,
        "signal",
        4,
        1,
        8,
    )
    assert found.output_path("train.memscope") == tmp_path / "a-rank4.memscope"


@pytest.mark.parametrize(
    ("chosen", "recording"), [("all", [0, 1, 2, 3, 4, 5, 6]), ("0,3-5", [0, 3, 4, 5]), ("6", [6]), ("2-2", [2])]
)
def test_only_the_chosen_ranks_record(chosen: str, recording: list[int]) -> None:
    def records(rank: int) -> bool:
        return read_environment({"MEMSCOPE_RANKS": chosen, "RANK": str(rank)}).records_here

    assert [rank for rank in range(7) if records(rank)] == recording


def test_a_process_without_a_rank_is_rank_0() -> None:
    assert read_environment({"MEMSCOPE_RANKS": "0"}).records_here
    assert not read_environment({"MEMSCOPE_RANKS": "1"}).records_here


def test_a_folder_takes_the_default_name(tmp_path: Path) -> None:
    found = read_environment({"MEMSCOPE_OUT": str(tmp_path), "RANK": "2"})
    assert found.output_path("src/train.memscope") == tmp_path / "train-rank2.memscope"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MEMSCOPE_RANKS", "x"),
        ("MEMSCOPE_RANKS", "5-3"),
        ("MEMSCOPE_RANKS", "1,,2"),
        ("MEMSCOPE_RANKS", "-1"),
        ("MEMSCOPE_RANKS", "0-99999999999"),
        ("MEMSCOPE_MAX_EVENTS", "0"),
        ("MEMSCOPE_MAX_EVENTS", "1e6"),
        ("MEMSCOPE_MAX_EVENTS", "-5"),
        ("MEMSCOPE_MAX_EVENTS", "9" * 5000),
        ("MEMSCOPE_TRIGGER", "socket"),
        ("MEMSCOPE_OUT", "/no/such/folder/a.memscope"),
        ("RANK", "first"),
        ("LOCAL_RANK", "²"),
        ("WORLD_SIZE", "4.0"),
    ],
)
def test_what_cannot_be_used_is_named_in_one_line(name: str, value: str) -> None:
    with pytest.raises(UsageError, match=name) as raised:
        read_environment({name: value})
    assert "\n" not in str(raised.value)


def test_a_rank_must_be_below_the_world_size() -> None:
    with pytest.raises(UsageError, match="WORLD_SIZE=4"):
        read_environment({"RANK": "4", "WORLD_SIZE": "4"})


def test_the_rank_goes_before_the_suffix_once() -> None:
    assert rank_path("a/train.memscope", 3) == Path("a/train-rank3.memscope")
    assert rank_path("a/train-rank3.memscope", 3) == Path("a/train-rank3.memscope")
    assert rank_path("a/train-rank13.memscope", 3) == Path("a/train-rank13-rank3.memscope")
    assert rank_path("train.memscope", None) == Path("train.memscope")


def test_of_two_variables_for_the_allocator_the_older_is_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "")
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "backend:native")
    assert list(allocator_settings().values()) == ["backend:native"]
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:64")
    assert list(allocator_settings().values()) == ["backend:native", "max_split_size_mb:64"]


@pytest.mark.parametrize(
    ("release", "rule"),
    [
        ("2.6.0+cu124", TieRule.ADDRESS),
        ("2.11.0", TieRule.ADDRESS),
        ("2.12.1", TieRule.BLOCK_AGE),
        ("2.13.0a0", TieRule.SEGMENT_AGE),
        ("10.0", TieRule.SEGMENT_AGE),
        ("unreadable", TieRule.SEGMENT_AGE),
    ],
)
def test_the_tie_rule_is_the_releases(release: str, rule: TieRule) -> None:
    assert tie_rule_of(release) == rule
