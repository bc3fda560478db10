"""The examples on CUDA: those that record from inside, as a user starts them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from memscope.emulation.launch import EmulatedMachine
from memscope.trace.categories import Category
from memscope.trace.marks import step_spans
from memscope.trace.open import open_trace
from memscope.trace.schema import Action
from memscope.trace.trace import Trace
from tests.emulated.conftest import ADAPTED, Ended, environment_of, run_python

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def run_example(device: str, tmp_path: Path) -> Callable[..., tuple[Ended, Trace]]:
    """Run an example with the file that it is to write, on the device, and open that."""

    def run(name: str, *arguments: str) -> tuple[Ended, Trace]:
        path = tmp_path / "run.memscope"
        machine = EmulatedMachine("NVIDIA GeForce RTX 4090", 24 << 30, 400 << 20, (8, 9), 128)
        start, environment = (("-c", ADAPTED), environment_of(machine)) if device == "emulated" else ((), {})
        ended = run_python(*start, EXAMPLES / f"{name}.py", path, *arguments, environment=environment)
        assert ended.code == 0, ended.err
        trace = open_trace(path)
        assert trace.metadata.source == "cuda"
        assert trace.metadata.n_events_lost == 0
        return ended, trace

    return run


def test_a_trainer_is_recorded_by_its_callback(run_example: Callable[..., tuple[Ended, Trace]]) -> None:
    _, trace = run_example("trainer_callback", "4")
    assert [span.label for span in step_spans(trace)] == ["1", "2", "3", "4"]
    names = {trace.strings[i] for i in trace.owners.label_id}
    assert {"transformer.wte.weight", "exp_avg of transformer.h.3.attn.c_attn.weight"} <= names


def test_a_with_block_records_steps_and_tags(run_example: Callable[..., tuple[Ended, Trace]]) -> None:
    _, trace = run_example("record_context")
    assert [span.label for span in step_spans(trace)] == ["0", "1", "2"]
    assert {Category.WEIGHTS, Category.OPTIMIZER_STATE} <= set(trace.owners.category.tolist())


def test_memory_that_ran_out_is_kept_at_once(run_example: Callable[..., tuple[Ended, Trace]], tmp_path: Path) -> None:
    ended, trace = run_example("catch_oom")
    (kept,) = tmp_path.glob("run-oom-pid*.memscope")
    first = open_trace(kept)
    actions = first.action.tolist()
    assert actions.count(Action.OOM) == 1
    assert actions == trace.action[: len(actions)].tolist()
    assert Category.WEIGHTS in first.owners.category.tolist()
    assert str(kept) in ended.out
    assert ended.out.endswith("done\n")
