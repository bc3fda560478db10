"""Tags: of memscope, of PyTorch's metadata and annotations, and of the ranges of a snapshot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from memscope.analysis import Analysis, load
from memscope.attribution.attribution import Attribution
from memscope.attribution.grouping import tag_groups
from memscope.trace.categories import Category, CategorySource
from memscope.trace.container import write_container
from memscope.trace.snapshot.read import read_snapshot
from tests.trace.snapshot.snapshots import BASE, MIB, block, event, segment, write

RULES = """
[[rule]]
name = "first epoch"
category = "inputs"
reason = "the loader says so"
tags = ["never", "(?i)^EPOCH=0"]
"""


def tagged(*events: dict[str, Any], annotations: tuple[tuple[str, str, int], ...] = ()) -> dict[str, Any]:
    """A segment of which events take blocks of 2 MiB, and ranges by stage, name and time."""
    return {
        "segments": [segment(BASE, [block(BASE, 20 * MIB)], total_size=20 * MIB)],
        "device_traces": [[event("segment_alloc", BASE, 20 * MIB, 1), *events]],
        "external_annotations": [
            {"stage": stage, "name": name, "device": 0, "time_us": time_us} for stage, name, time_us in annotations
        ],
    }


def life(place: int, begin: int, end: int, tag: str | None = None) -> list[dict[str, Any]]:
    more = {} if tag is None else {"user_metadata": tag}
    address = BASE + 2 * MIB * place
    return [
        event("alloc", address, 2 * MIB, begin, **more),
        event("free_requested", address, 2 * MIB, end),
        event("free_completed", address, 2 * MIB, end),
    ]


def in_time(*lives: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted((e for one in lives for e in one), key=lambda e: e["time_us"])


def analysed(tmp_path: Path, snapshot: dict[str, Any], rules: str | None = None) -> Analysis:
    path = None if rules is None else tmp_path / "rules.toml"
    if path is not None and rules is not None:
        path.write_text(rules)
    return load(write(tmp_path, snapshot), rules=path)


def tags_of(analysis: Analysis) -> list[str]:
    """The tag of each allocation, in the order in which they were made."""
    device = analysis.device(0)
    return tag_groups(analysis.trace, device.attribution, device.allocations.alloc_event.argsort())


def attribution_of(analysis: Analysis) -> Attribution:
    return analysis.device(0).attribution


def test_what_the_program_told_pytorch_is_a_tag(tmp_path: Path) -> None:
    events = in_time(life(0, 10, 50, "epoch=0;step=1"), life(1, 11, 51), life(2, 12, 52, ""))
    analysis = analysed(tmp_path, tagged(*events))
    assert tags_of(analysis) == ["epoch=0;step=1", "not tagged", "not tagged"]
    assert analysis.device(0).owner_of(0) is None  # a tag is no owner's name
    assert analysis.peak().by("tag")["requested_bytes"].to_dict() == {"not tagged": 4 * MIB, "epoch=0;step=1": 2 * MIB}


def test_a_tag_that_names_a_category_decides_it(tmp_path: Path) -> None:
    events = in_time(life(0, 10, 50, "kv_cache"), life(1, 11, 51, "weights: lm_head"), life(2, 12, 52, "mine"))
    found = attribution_of(analysed(tmp_path, tagged(*events)))
    assert found.category.tolist()[:2] == [Category.KV_CACHE, Category.WEIGHTS]
    assert found.source.tolist()[:2] == [CategorySource.USER] * 2
    assert found.source[2] != CategorySource.USER


def test_the_last_annotation_of_a_live_tensor_goes_first(tmp_path: Path) -> None:
    def annotate(place: int, time_us: int, text: str) -> dict[str, Any]:
        return event("annotate", BASE + 2 * MIB * place, 2 * MIB, time_us, user_metadata=text)

    events = in_time(
        life(0, 10, 20, "first life"),
        life(0, 30, 50, "second life"),
        life(1, 11, 51),
        [annotate(0, 31, "one"), annotate(0, 32, "two"), annotate(1, 60, "too late"), annotate(5, 33, "nothing there")],
    )
    assert tags_of(analysed(tmp_path, tagged(*events))) == ["first life", "not tagged", "two"]


def test_the_innermost_range_is_a_tag_where_nothing_else_is_and_a_step_is_none(tmp_path: Path) -> None:
    ranges = (
        ("START", "ProfilerStep#1", 5),
        ("START", "forward", 8),
        ("START", "attention", 20),
        ("END", "attention", 30),
        ("END", "forward", 40),
        ("START", "weights", 41),
        ("END", "weights", 49),
        ("END", "ProfilerStep#1", 50),
    )
    lives = [life(i, begin, 60 + i, "told" if i == 4 else None) for i, begin in enumerate((6, 10, 25, 35, 26, 45, 55))]
    analysis = analysed(tmp_path, tagged(*in_time(*lives), annotations=ranges))
    expected = ["not tagged", "forward", "attention", "told", "forward", "weights", "not tagged"]
    assert tags_of(analysis) == expected
    assert Category.WEIGHTS not in attribution_of(analysis).category  # a range is a label, whatever it says
    assert analysis.device(0).owner_of(1) is None
    container = write_container(
        read_snapshot(write(tmp_path, tagged(*in_time(*lives), annotations=ranges))), tmp_path / "a"
    )
    assert tags_of(load(container)) == expected


def test_rules_see_tags(tmp_path: Path) -> None:
    events = in_time(life(0, 10, 50, "epoch=0;step=1"), life(1, 11, 51, "epoch=1"), life(2, 12, 52))
    analysis = analysed(tmp_path, tagged(*events), RULES)
    found = attribution_of(analysis)
    assert [row for row in range(3) if (rule := found.rule_of(row)) and rule.name == "first epoch"] == [0]
    assert found.category[0] == Category.INPUTS
