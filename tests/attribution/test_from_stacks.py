"""Categories from stacks alone, against programs whose owners identity knows."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from memscope.analysis import Analysis
from memscope.attribution.attribution import attribute
from memscope.lifetimes.device import DeviceLifetimes
from memscope.trace.categories import Category, CategorySource
from memscope.trace.schema import NONE_ID, Action
from memscope.trace.trace import Trace
from tests.attribution.from_stacks import classify_peak, without_backward_stacks, without_identity
from tests.attribution.workloads import WORKLOADS, record_workload

QUICK = ("llama, SGD momentum", "GPT-2, AdamW fused", "CNN, Adam", "GPT-2, generate")
NAMES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in WORKLOADS]
LEAST_RIGHT = {True: 0.95, False: 0.98}
"""By whether the program trains."""
MOST_UNTOLD = 0.05
"""Bytes at the peak that identity itself does not know: outputs, and what a cache keeps in training."""

pytestmark = pytest.mark.filterwarnings("ignore")


@cache
def recorded(name: str) -> Trace:
    """A workload's trace, recorded once."""
    return record_workload(name)


@pytest.mark.parametrize("as_on_cuda", [False, True], ids=["all-stacks", "as-on-cuda"])
@pytest.mark.parametrize("name", NAMES)
def test_stacks_alone_tell_the_peak(name: str, as_on_cuda: bool) -> None:
    verdict = classify_peak(recorded(name), as_on_cuda=as_on_cuda)
    assert verdict.right_frac >= LEAST_RIGHT[WORKLOADS[name].trains]
    assert verdict.untold_bytes <= MOST_UNTOLD * verdict.confusion.sum()


def test_every_kind_of_memory_is_found_somewhere() -> None:
    found = np.sum([classify_peak(recorded(name), as_on_cuda=True).confusion for name in QUICK], axis=0)
    expected = (
        Category.WEIGHTS,
        Category.GRADIENTS,
        Category.OPTIMIZER_STATE,
        Category.ACTIVATIONS,
        Category.KV_CACHE,
        Category.INPUTS,
        Category.TEMPORARIES,
        Category.WORKSPACE,
    )
    assert all(found[category, category] > 0 for category in expected)


def test_without_identity_nothing_of_it_is_left() -> None:
    blind = without_identity(recorded("CNN, Adam"))
    attribution = attribute(DeviceLifetimes(blind, 0))
    assert not np.isin(attribution.source, (CategorySource.IDENTITY, CategorySource.USER)).any()
    assert (attribution.owner_id == NONE_ID).all()
    assert not len(blind.marks)


def test_as_on_cuda_backward_allocations_have_no_stack() -> None:
    trace = recorded("llama, SGD momentum")
    before = trace.stack_id[trace.action == Action.ALLOC]
    after = without_backward_stacks(trace).stack_id[trace.action == Action.ALLOC]
    assert (before != NONE_ID).all()
    assert 0.1 < (after == NONE_ID).mean() < 0.9


@pytest.mark.parametrize("name", ["CNN, Adam", "llama, SGD momentum"])
def test_steps_are_told_without_marks(name: str) -> None:
    trace = recorded(name)
    marked = Analysis(trace).device(0).steps
    blind = Analysis(without_identity(without_backward_stacks(trace))).device(0).steps
    assert marked is not None
    assert blind is not None
    assert (marked.source, blind.source) == ("marks", "the optimizer's calls")
    assert len(blind) == len(marked) == 3
    allocs = np.flatnonzero(trace.action == Action.ALLOC)
    assert (marked.step_of(allocs) == blind.step_of(allocs)).mean() > 0.97
