"""What a recording knows of the memory: whose it is, at the peak of training and of generation."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from memscope.attribution.attribution import attribute
from memscope.attribution.ledger import ledger_at
from memscope.lifetimes.device import DeviceLifetimes
from memscope.trace.categories import Category, CategorySource
from memscope.trace.marks import phase_spans, step_spans
from memscope.trace.open import open_trace
from memscope.trace.schema import NONE_ID
from tests.emulated.conftest import PROGRAMS, Ended, run_memscope

pytestmark = pytest.mark.emulated
_SHARE = 0.98


def _recorded(tmp_path: Path, *arguments: str) -> Path:
    path = tmp_path / "run.memscope"
    program = PROGRAMS / "recorder_step.py"
    ended: Ended = run_memscope("run", "--emulate", "-o", path, program, tmp_path / "evidence.pickle", *arguments)
    assert ended.code == 0, ended.err
    return path


def _share_by_identity(lifetimes: DeviceLifetimes, begin: int, end: int) -> tuple[float, set[str]]:
    """Of the allocated bytes at their peak between two events, those whose owner was seen; and their categories."""
    table, attribution = lifetimes.allocations, attribute(lifetimes)
    n_events = len(lifetimes.trace)
    born = np.maximum(table.alloc_event, 0)
    died = np.where(table.free_event == NONE_ID, n_events, table.free_event)
    change = np.zeros(n_events + 1, np.int64)
    np.add.at(change, born, table.requested_bytes)
    np.add.at(change, died, -table.requested_bytes)
    peak = begin + int(np.argmax(np.cumsum(change)[begin:end]))
    live = (born <= peak) & (died > peak)
    seen = live & (attribution.source == CategorySource.IDENTITY)
    categories = {Category(c).label for c in np.unique(attribution.category[seen])}
    return float(table.requested_bytes[seen].sum() / table.requested_bytes[live].sum()), categories


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_at_the_peak_of_a_training_step_every_byte_has_an_owner(tmp_path: Path, family: str) -> None:
    trace = open_trace(_recorded(tmp_path, family, "train"))
    lifetimes = DeviceLifetimes(trace, 0)
    assert not lifetimes.problems
    assert trace.metadata.n_events_lost == 0
    assert [span.label for span in step_spans(trace)] == ["0", "1", "2"]
    phases = phase_spans(trace)
    assert [span.label for span in phases] == ["forward", "backward", "optimizer"] * 3
    expected = {
        "forward": {"weights", "optimizer_state", "activations", "inputs"},
        "backward": {"weights", "optimizer_state", "activations", "inputs", "temporaries"},
        "optimizer": {"weights", "gradients", "optimizer_state", "inputs", "temporaries"},
    }
    for span in phases[3:]:
        share, categories = _share_by_identity(lifetimes, span.begin, span.end)
        assert share >= _SHARE, (span, share)
        assert expected[span.label] <= categories, span
    # No mask is made for GPT-2's attention, as on a GPU: its own temporaries are those of the backward pass.
    named = {
        "llama": {"model.layers.0.self_attn", "backward of model.layers.0.self_attn"},
        "gpt2": {"transformer.h.0.mlp.act", "backward of transformer.h.0.attn"},
    }[family]
    labels = {trace.strings[i] for i in trace.owners.label_id[trace.owners.category == Category.TEMPORARIES]}
    assert named <= labels, "temporaries are named by their module"


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("task", ["train", "generate"])
def test_what_each_category_holds_at_the_end_is_the_sum_of_its_tensors(tmp_path: Path, family: str, task: str) -> None:
    lifetimes = DeviceLifetimes(open_trace(_recorded(tmp_path, family, task)), 0)
    ledger = ledger_at(lifetimes, attribute(lifetimes), lifetimes.last_event)
    sums = pickle.loads((tmp_path / "evidence.pickle").read_bytes())["seen"]
    assert {name: ledger[name] for name in sums} == sums
    assert sums["weights"] > 0
    assert (sums["kv_cache"] > 0) == (task == "generate")
    assert (min(sums["gradients"], sums["optimizer_state"]) > 0) == (task == "train")


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_at_the_peak_of_generation_every_byte_has_an_owner(tmp_path: Path, family: str) -> None:
    trace = open_trace(_recorded(tmp_path, family, "generate"))
    lifetimes = DeviceLifetimes(trace, 0)
    assert not lifetimes.problems
    assert trace.metadata.n_events_lost == 0
    (span,) = phase_spans(trace)
    assert span.label == "generate"
    share, categories = _share_by_identity(lifetimes, span.begin, span.end)
    assert share >= _SHARE
    assert {"weights", "kv_cache", "inputs", "temporaries"} <= categories


def test_the_owners_are_those_that_a_dry_run_names(tmp_path: Path) -> None:
    """The same weights, gradients and states, by the same names."""
    recorded = open_trace(_recorded(tmp_path, "gpt2", "train"))
    names: dict[Category, set[str]] = {}
    for category, label_id in zip(recorded.owners.category.tolist(), recorded.owners.label_id.tolist(), strict=True):
        names.setdefault(Category(category), set()).add(recorded.strings[label_id])
    weights = names[Category.WEIGHTS]
    assert "transformer.h.0.attn.c_attn.weight" in weights
    assert names[Category.GRADIENTS] == {f"{name}.grad" for name in weights}
    states = {f"{state} of {name}" for name in weights for state in ("exp_avg", "exp_avg_sq")}
    assert names[Category.OPTIMIZER_STATE] == states
