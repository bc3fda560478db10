"""Every example runs as its first lines say, without a GPU, and is short."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from memscope.lifetimes.device import DeviceLifetimes
from memscope.trace.categories import Category
from memscope.trace.marks import step_spans
from memscope.trace.open import open_trace
from memscope.trace.schema import Action

pytest.importorskip("torch")
EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.py"))
_MOST_LINES = 60


def _run(folder: Path, arguments: Sequence[object]) -> str:
    """Run Python in a folder of its own and return what it printed."""
    ended = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def _example(name: str) -> Path:
    (path,) = (path for path in EXAMPLES if path.stem == name)
    return path


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short_and_says_how_it_is_run(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < _MOST_LINES
    assert f"{path.name}" in text.split('"""')[1]


def test_training_inside_a_with_block_is_recorded(tmp_path: Path) -> None:
    _run(tmp_path, [_example("record_context")])
    trace = open_trace(tmp_path / "record_context.memscope")
    assert [span.label for span in step_spans(trace)] == ["0", "1", "2"]
    assert "replay buffer" in {trace.strings[i] for i in trace.owners.label_id}
    assert {Category.WEIGHTS, Category.GRADIENTS, Category.OPTIMIZER_STATE} <= set(trace.owners.category.tolist())


def test_generation_is_recorded_with_its_cache(tmp_path: Path) -> None:
    sizes = ("--layers", "2", "--hidden", "64", "--heads", "2", "--vocab", "100", "--new-tokens", "5")
    path = tmp_path / "generate.memscope"
    command = ("-m", "memscope", "run", "--dry-run", "--gpu", "L4-24GB", "-o", path)
    assert _run(tmp_path, [*command, _example("generate_gpt2"), *sizes]) == "8 sequences of 133 tokens\n"
    assert Category.KV_CACHE in open_trace(path).owners.category.tolist()


def test_training_a_language_model_is_recorded(tmp_path: Path) -> None:
    sizes = ("--layers", "1", "--hidden", "64", "--intermediate", "128", "--heads", "2", "--kv-heads", "1")
    path = tmp_path / "train.memscope"
    command = ("-m", "memscope", "run", "--dry-run", "--gpu", "RTX4090-24GB", "-o", path)
    _run(tmp_path, [*command, _example("train_llama"), *sizes, "--vocab", "100", "--seq", "16"])
    assert [span.label for span in step_spans(open_trace(path))] == ["0", "1"]


def test_memory_that_ran_out_is_kept_and_the_run_goes_on(tmp_path: Path) -> None:
    printed = _run(tmp_path, [_example("catch_oom")])
    (kept,) = tmp_path.glob("catch_oom-oom-*.memscope")
    first, last = open_trace(kept), open_trace(tmp_path / "catch_oom.memscope")
    assert first.action[-1] == Action.OOM
    assert int((first.action == Action.OOM).sum()) == 1
    assert last.n_events > first.n_events
    assert last.action[: first.n_events].tolist() == first.action.tolist()
    assert str(kept) in printed
    assert printed.endswith("done\n")


def test_each_rank_records_into_a_file_of_its_own(tmp_path: Path) -> None:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    _run(tmp_path, [*launcher, _example("train_ranks")])
    traces = [open_trace(tmp_path / f"train_ranks-rank{rank}.memscope") for rank in range(2)]
    assert [trace.metadata.rank for trace in traces] == [0, 1]
    peaks = [int(DeviceLifetimes(trace, trace.devices[0]).usage.allocated_bytes.max()) for trace in traces]
    assert peaks[1] > 1.5 * peaks[0], "the second rank's sequences are longer"
