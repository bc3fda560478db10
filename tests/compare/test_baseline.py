"""Baselines: bands of several runs, who held what, and what has grown since."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from memscope.analysis import Analysis, load
from memscope.compare.baseline import (
    Band,
    Tolerance,
    baseline_of,
    changed_since,
    doubts_of,
    is_baseline,
    parse_tolerance,
    read_baseline,
    write_baseline,
)
from memscope.errors import InputFileError, UsageError
from memscope.trace.categories import Category
from tests.compare.runs import MiB, Take, line, run

SHIPPED = Path(__file__).parents[2] / "traces" / "tiny-llama-train.memscope"


def runs(*sizes: int) -> list:
    return [
        run([Take(20 * MiB, Category.WEIGHTS, "fc.weight", line(1)), Take(size * MiB, calls=line(5))]) for size in sizes
    ]


def test_the_band_is_of_all_runs_and_the_rows_of_the_one_in_the_middle() -> None:
    found = baseline_of(runs(8, 2, 4, 6))
    assert (found.n_runs, found.device) == (4, 0)
    # 22, 24, 26 and 28 MiB: the lower of the two in the middle.
    assert found.peak_allocated == Band(22 * MiB, 24 * MiB, 28 * MiB)
    assert found.peak_reserved == Band(22 * MiB, 24 * MiB, 28 * MiB)
    assert found.peak_allocated.noise_bytes == 6 * MiB
    assert found.held_bytes == 24 * MiB
    assert {one.key for one in found.held} == {"fc.weight", "me/project/train.py:5 forward", "rounding"}


def test_a_file_reads_back_as_it_was(tmp_path: Path) -> None:
    found = baseline_of([load(SHIPPED)])
    path = write_baseline(found, tmp_path / "base.json")
    assert read_baseline(path) == found
    assert is_baseline(path)
    assert not is_baseline(SHIPPED)
    assert not is_baseline(tmp_path / "nowhere.json")
    with pytest.raises(UsageError):
        write_baseline(found, path)


def test_a_file_of_before_sizes_of_inputs_were_noted_is_read(tmp_path: Path) -> None:
    found = baseline_of([load(SHIPPED)])
    path = write_baseline(found, tmp_path / "base.json")
    content = json.loads(path.read_text())
    assert content.pop("for_inputs")
    path.write_text(json.dumps(content))
    assert read_baseline(path) == replace(found, for_inputs=())


def test_it_names_no_folder_of_the_machine(tmp_path: Path) -> None:
    calls = line(5, file="/home/someone/secret/work/project/train.py")
    path = write_baseline(baseline_of([run([Take(2 * MiB, calls=calls)])]), tmp_path / "base.json")
    assert "someone" not in path.read_text()
    assert "work/project/train.py:5 forward" in path.read_text()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "other"}, "not what memscope baseline writes"),
        ({"format_version": 9}, "newer memscope"),
        ({"peak_allocated": None}, "not a readable baseline"),
        ({"peak_allocated": {"lowest_bytes": 5, "median_bytes": 2, "highest_bytes": 1}}, "in order"),
        ({"n_runs": -1}, "no count of bytes"),
        ({"held": []}, "do not sum"),
        ({"for_inputs": [{"inputs_bytes": 5, "highest_bytes": 5}]}, "'noise_bytes' is missing"),
        ({"for_inputs": [{"inputs_bytes": 5, "highest_bytes": 5, "noise_bytes": 0, "n_runs": 1}] * 2}, "not in order"),
        ({"held": [{"key": "a", "category": "cats", "bytes": 1, "n_allocations": 1}]}, "no category"),
        ({"held": [{"key": 3, "category": "weights", "bytes": 1, "n_allocations": 1}]}, "no name"),
    ],
)
def test_what_is_no_baseline_is_refused_in_one_line(tmp_path: Path, change: dict, words: str) -> None:
    path = write_baseline(baseline_of(runs(2)), tmp_path / "base.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputFileError, match=words) as refused:
        read_baseline(path)
    assert str(refused.value).startswith(str(path))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 100_000, "null"])
def test_what_is_no_json_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "base.json"
    path.write_text(content)
    with pytest.raises(InputFileError, match="not a readable baseline"):
        read_baseline(path)


def test_what_grew_sums_to_the_difference_of_the_peaks() -> None:
    before = baseline_of(runs(4))
    acts = [
        Take(20 * MiB, Category.WEIGHTS, "fc.weight", line(1)),
        Take(10 * MiB, calls=line(9)),
        Take(2 * MiB - 512, Category.INPUTS, "tokens", line(3), extra=512),
    ]
    device = run(acts).device()
    rows = changed_since(before, device)
    assert sum(row.delta_bytes for row in rows) == device.peak().allocated_bytes - before.held_bytes
    assert rows[-1].is_rounding
    # Line 5 has become line 9 of the same function: it grew, it is not new.
    assert [(row.key, row.a_bytes // MiB, row.b_bytes // MiB) for row in rows[:1]] == [
        ("/home/me/project/train.py:9 forward", 4, 10)
    ]


def test_what_is_gone_since_is_a_row() -> None:
    before = baseline_of(runs(4))
    rows = changed_since(before, run([Take(20 * MiB, Category.WEIGHTS, "fc.weight", line(1))]).device())
    assert [(row.key, row.delta_bytes) for row in rows if row.delta_bytes] == [
        ("me/project/train.py:5 forward", -4 * MiB)
    ]


def test_an_unchanged_run_has_grown_in_nothing() -> None:
    analysis = load(SHIPPED)
    assert not [row for row in changed_since(baseline_of([analysis]), analysis.device()) if row.delta_bytes]


def test_tolerances() -> None:
    assert parse_tolerance("1%") == Tolerance(frac=0.01)
    assert parse_tolerance("0.5 %").of(1000) == 5
    assert parse_tolerance("64MiB").of(1) == 64 * MiB
    assert parse_tolerance("0").of(1 << 40) == 0
    for text in ("one", "-1%", "1%%", ""):
        with pytest.raises(UsageError, match="is no tolerance"):
            parse_tolerance(text)


def test_a_baseline_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="at least one run"):
        baseline_of([])


def test_runs_that_may_not_be_of_one_configuration_are_doubted() -> None:
    def weights(name: str, size: int = 20) -> Analysis:
        return run([Take(size * MiB, Category.WEIGHTS, name, line(1))], f"{name}.memscope")

    assert doubts_of(runs(8, 2, 4, 6)) == (
        "their peaks lie far apart: 22.0 MiB (run.memscope (run 2)), 28.0 MiB (run.memscope (run 1))",
    )
    assert doubts_of(runs(4, 5, 6)) == ()
    assert doubts_of([weights("fc.weight")]) == ()
    assert doubts_of([weights("fc.weight"), weights("emb.weight")]) == (
        "fc.weight.memscope holds weights 'fc.weight', emb.weight.memscope does not",
    )
    assert len(doubts_of([weights("fc.weight"), weights("emb.weight", 40)])) == 2
    without = run([Take(20 * MiB, calls=line(1))], "plain.memscope")
    assert doubts_of([without, weights("fc.weight"), without]) == ()
