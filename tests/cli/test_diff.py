"""``memscope diff``: the JSON contract, the words, the exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from memscope.trace.categories import Category
from memscope.trace.container import write_container
from tests.compare.runs import MiB, Take, line, run_trace
from tests.conftest import Outcome

Run = Callable[..., Outcome]
SHIPPED = Path(__file__).parents[2] / "traces"
TRAIN, GENERATE = SHIPPED / "tiny-llama-train.memscope", SHIPPED / "tiny-gpt2-generate.memscope"


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    a = [Take(2 * MiB, Category.WEIGHTS, "fc.weight", line(1)), "0", Take(2 * MiB, calls=line(4)), "1"]
    b = [*a[:1], Take(8 * MiB, calls=line(9, "grown")), *a[1:]]
    return (
        write_container(run_trace(a), tmp_path / "a.memscope"),
        write_container(run_trace(b), tmp_path / "b.memscope"),
    )


def test_json_has_the_keys_that_scripts_rely_on(memscope: Run) -> None:
    outcome = memscope("diff", TRAIN, GENERATE, "--json")
    assert outcome.code == 0
    said = json.loads(outcome.out)
    assert said["schema_version"] == 1
    for side in ("a", "b"):
        assert {"peak_allocated_bytes", "peak_reserved_bytes"} <= set(said[side])
    assert said["delta_bytes"] == said["b"]["peak_allocated_bytes"] - said["a"]["peak_allocated_bytes"]
    assert all({"key", "category", "a_bytes", "b_bytes", "delta_bytes"} <= set(row) for row in said["rows"])
    assert sum(row["delta_bytes"] for row in said["rows"]) == said["delta_bytes"]
    assert sum(row["a_bytes"] for row in said["rows"]) == said["a"]["peak_allocated_bytes"]
    assert "rounding" in [row["key"] for row in said["rows"]]


def test_text_says_which_is_larger_and_where(memscope: Run, pair: tuple[Path, Path]) -> None:
    out = memscope("diff", *pair).out
    assert out.startswith("b.memscope holds 8.0 MiB more than a.memscope at its peak: 4.0 MiB → 12.0 MiB allocated")
    assert "train.py:9 grown" in out


def test_two_steps_of_one_run_say_what_grew(memscope: Run, pair: tuple[Path, Path]) -> None:
    said = json.loads(memscope("diff", pair[0], "--steps", "0:1", "--json").out)
    assert said["delta_bytes"] == 2 * MiB
    assert said["rows"][0]["key"].endswith("train.py:4 forward")
    assert "Allocated memory grew by 2.0 MiB" in memscope("diff", pair[0], "--steps", "0:1").out


def test_two_moments_are_compared(memscope: Run, pair: tuple[Path, Path]) -> None:
    said = json.loads(memscope("diff", *pair, "--at-a", "-1", "--at-b", "1", "--json").out)
    assert (said["a"]["event"], said["b"]["event"], said["delta_bytes"]) == (-1, 1, 2 * MiB)


def test_a_page_is_written_and_not_over_another(memscope: Run, pair: tuple[Path, Path], tmp_path: Path) -> None:
    page = tmp_path / "diff.html"
    assert memscope("diff", *pair, "-o", page).code == 0
    assert "8.0" in page.read_text()
    refused = memscope("diff", *pair, "-o", page)
    assert (refused.code, "exists already" in refused.err) == (1, True)
    assert memscope("diff", *pair, "-o", page, "-f").code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((TRAIN,), "there is one trace: give a second"),
        ((TRAIN, "--steps", "3"), "is not two steps"),
        ((TRAIN, "--steps", "0:9"), "has no step '9'"),
        ((TRAIN, "--steps", "0:1", "--at-a", "3"), "two different moments"),
        ((TRAIN, GENERATE, "--device", "4"), "device 4 is not in this trace"),
        ((TRAIN, GENERATE, "--at-b", "999999"), "event 999999 is not in this trace"),
        ((TRAIN, "nowhere.pickle"), "nowhere.pickle"),
        ((TRAIN, GENERATE, "--by", "sites"), "did you mean 'site'"),
    ],
)
def test_what_cannot_be_compared_is_said_in_one_line(memscope: Run, arguments: tuple[object, ...], words: str) -> None:
    outcome = memscope("diff", *arguments)
    assert outcome.code == 1
    assert words in outcome.err
    assert len(outcome.err.splitlines()) == 1
