"""``memscope report`` of several traces."""

from __future__ import annotations

import dataclasses
import json
import pickle
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from memscope.trace.container import write_container
from memscope.trace.snapshot.write import snapshot_dict
from memscope.trace.trace import Trace
from tests.conftest import Outcome
from tests.rank_traces import MiB, rank_trace, training

Run = Callable[..., Outcome]


SCRIPT = """
import os
import torch

rank = int(os.environ["RANK"])
model = torch.nn.Linear(256, 1024).cuda()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(3):
    batch = torch.randn(64 * (1 + rank), 256, device="cuda")
    model(batch).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
"""


def written(folder: Path, traces: Sequence[Trace]) -> list[Path]:
    return [write_container(trace, folder / f"run-rank{i}.memscope") for i, trace in enumerate(traces)]


@pytest.fixture
def two_ranks(tmp_path: Path) -> list[Path]:
    return written(tmp_path, [rank_trace(training(10), rank=0), rank_trace(training(30), rank=1)])


def test_several_traces_are_set_side_by_side(memscope: Run, two_ranks: list[Path]) -> None:
    outcome = memscope("report", *two_ranks)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("rank 1 peaks highest: 50.0 MiB allocated (step 0); rank 0 lowest, 20.0 MiB (40.0 %)")


def test_the_order_of_the_files_does_not_matter(memscope: Run, two_ranks: list[Path]) -> None:
    assert memscope("report", *two_ranks).out == memscope("report", *reversed(two_ranks)).out


def test_the_json_has_the_keys_that_scripts_rely_on(memscope: Run, two_ranks: list[Path]) -> None:
    content = json.loads(memscope("report", *two_ranks, "--json").out)
    assert content["schema_version"] == 1
    assert {"ranks", "spread", "steps", "differences", "settings_that_differ"} <= set(content)
    assert [row["peak"]["allocated_bytes"] for row in content["ranks"]] == [30 * MiB, 50 * MiB]
    assert [row["path"] for row in content["ranks"]] == [str(path) for path in two_ranks]


def test_one_trace_is_reported_as_ever(memscope: Run, two_ranks: list[Path]) -> None:
    report = json.loads(memscope("report", two_ranks[0], "--json").out)
    assert {"trace", "completeness", "devices"} <= set(report)
    assert "Device 0: peak 30.0 MiB allocated" in memscope("report", two_ranks[0]).out


def test_no_trace_at_all_is_one_line_and_exit_1(memscope: Run) -> None:
    outcome = memscope("report")
    assert outcome.code == 1
    assert outcome.err.count("\n") == 1
    assert "TRACE" in outcome.err


def test_a_page_of_several_is_written_once(memscope: Run, two_ranks: list[Path], tmp_path: Path) -> None:
    page = tmp_path / "ranks.html"
    outcome = memscope("report", *two_ranks, "-o", page)
    assert (outcome.code, outcome.out, outcome.err) == (0, "", f"memscope: wrote {page}\n")
    assert "2 recordings side by side" in page.read_text()
    again = memscope("report", *two_ranks, "-o", page)
    assert again.code == 1
    assert "-f" in again.err
    assert memscope("report", *two_ranks, "-o", page, "-f").code == 0


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_truncated_file_among_good_ones_is_named(memscope: Run, two_ranks: list[Path], share: float) -> None:
    content = two_ranks[1].read_bytes()
    two_ranks[1].write_bytes(content[: int(share * len(content))])
    outcome = memscope("report", *two_ranks)
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.count("\n") == 1
    assert str(two_ranks[1]) in outcome.err


def test_two_files_of_one_rank_are_refused_naming_both(memscope: Run, two_ranks: list[Path], tmp_path: Path) -> None:
    twin = write_container(rank_trace(training(12), rank=0), tmp_path / "again.memscope")
    outcome = memscope("report", *two_ranks, twin)
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err == (
        f"memscope: {two_ranks[0]} and {twin} both say that they are rank 0, device 0: give one of each rank\n"
    )


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_contradiction_is_exit_3_and_names_the_file(memscope: Run, tmp_path: Path, options: tuple[str, ...]) -> None:
    good = rank_trace(training(10))
    sizes = good.size_bytes.copy()
    sizes[0] += 2 * MiB
    paths = written(tmp_path, [good, dataclasses.replace(good, size_bytes=sizes)])
    outcome = memscope("report", *paths, *options)
    assert (outcome.code, outcome.out) == (3, "")
    assert outcome.err.startswith("memscope: run-rank1.memscope contradicts itself: ")
    assert outcome.err.count("\n") == 1


def test_dry_runs_of_four_ranks_are_compared(memscope: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    monkeypatch.setenv("WORLD_SIZE", "4")
    for rank in range(4):
        monkeypatch.setenv("RANK", str(rank))
        outcome = memscope("run", "--dry-run", "--gpu", "1GiB", "-o", tmp_path / f"run-rank{rank}.memscope", script)
        assert outcome.code == 0, outcome.err
    paths = sorted(tmp_path.glob("run-rank*.memscope"))
    assert len(paths) == 4
    content = json.loads(memscope("report", *paths, "--json").out)
    assert [row["rank"] for row in content["ranks"]] == [0, 1, 2, 3]
    peaks = [row["peak"]["allocated_bytes"] for row in content["ranks"]]
    assert peaks == sorted(set(peaks))
    assert content["differences"]["highest"]["rank"] == 3
    assert content["differences"]["lowest"]["rank"] == 0
    assert [step["step"] for step in content["steps"][:3]] == ["0", "1", "2"]
    by_name = {row["name"]: row["difference_bytes"] for row in content["differences"]["categories"]}
    # The batch of rank 3 has 192 rows of 256 floats more than that of rank 0.
    assert by_name["inputs"] == 192 * 256 * 4


@pytest.mark.parametrize("packed", ["dict", "list", "zip"])
def test_the_snapshots_of_one_file_are_set_side_by_side(memscope: Run, tmp_path: Path, packed: str) -> None:
    snapshots = [snapshot_dict(rank_trace(training(10), rank=0)), snapshot_dict(rank_trace(training(30), rank=1))]
    path = tmp_path / "ranks"
    if packed == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for i, snapshot in enumerate(snapshots):
                archive.writestr(f"job/rank{i}.pickle", pickle.dumps(snapshot))
    else:
        path.write_bytes(pickle.dumps(snapshots if packed == "list" else dict(enumerate(snapshots))))
    outcome = memscope("report", path)
    assert (outcome.code, outcome.err) == (0, "")
    # A list may be one of time: nothing says that its snapshots are ranks.
    name = "ranks#1" if packed == "list" else "rank 1"
    assert outcome.out.startswith(f"{name} peaks highest: 50.0 MiB allocated")
    one = memscope("report", f"{path}#job/rank1.pickle" if packed == "zip" else f"{path}#1")
    assert one.code == 0
    assert "peak 50.0 MiB allocated" in one.out
    other = memscope("report", f"{path}#none")
    assert (other.code, other.out, other.err.count("\n")) == (1, "", 1)
    assert "none of them called 'none'" in other.err
