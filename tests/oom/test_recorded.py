"""Verdicts on what PyTorch's own allocator recorded, on an emulated device."""

from __future__ import annotations

import pytest

from memscope.analysis import load
from memscope.lifetimes.state import releasable_bytes
from memscope.oom.verdict import OomClass
from tests.oracles import ORACLE, needs_shared

pytestmark = needs_shared

FIRST = {
    "torch-2.6.0/oom_default": OomClass.EXTERNAL_FRAGMENTATION,
    "torch-2.11.0/oom_observer": OomClass.EXTERNAL_FRAGMENTATION,
    "torch-2.11.0/oom_exp": OomClass.EXTERNAL_FRAGMENTATION,
    "torch-2.11.0/oom_fraction": OomClass.FRACTION_CAP,
    "torch-2.11.0/oom_round4": OomClass.EXTERNAL_FRAGMENTATION,
    "torch-2.11.0/llm_llama1b_train_oom": OomClass.CAPACITY,
    "torch-2.12.1/new_fraction_conf": OomClass.FRACTION_CAP,
    "torch-2.15.0/oom_default": OomClass.EXTERNAL_FRAGMENTATION,
}
"""What follows from the bytes that were free, and those that the driver had left, at each first failure."""


@pytest.mark.parametrize("name", list(FIRST))
def test_the_first_failure_is_judged_and_its_replay_comes_to_the_same_bytes(name: str) -> None:
    analysis = load(ORACLE / f"{name}.pickle.gz")
    verdict = analysis.oom()
    assert verdict.verdict is FIRST[name]
    assert verdict.remedies.replay_error_bytes == 0
    assert verdict.counterfactual is not None
    assert verdict.counterfactual.checked in ("exact", "modelled")


@pytest.mark.parametrize("name", ["torch-2.15.0/oom_default", "torch-2.15.0/oom_exp", "torch-2.11.0/oom_round4"])
def test_after_the_allocators_own_reclaim_nothing_large_enough_is_left(name: str) -> None:
    analysis = load(ORACLE / f"{name}.pickle.gz")
    events = analysis.device(0).oom_events
    for event in events[:: max(len(events) // 8, 1)].tolist():
        verdict = analysis.oom(0, event)
        state = analysis.at(event).state
        failure, free = verdict.failure, verdict.failure.free
        assert free.fits_block_bytes == 0
        assert free.releasable_bytes == int(releasable_bytes(state).sum())
        assert free.releasable_bytes + failure.limit.device_free_bytes < failure.request.driver_bytes
        # Packing decides between the two, and says the same as plain bytes do but for a few pages of 2 MiB.
        margin = free.free_bytes + failure.limit.device_free_bytes - failure.request.rounded_bytes
        if abs(margin) > 16 << 20:
            expected = OomClass.EXTERNAL_FRAGMENTATION if margin > 0 else OomClass.CAPACITY
            assert verdict.verdict is expected


@pytest.mark.parametrize("name", ["skip_segments", "state_only"])
def test_a_recording_without_what_it_takes_says_so_or_has_no_failure(name: str) -> None:
    verdict = load(ORACLE / "torch-2.11.0" / f"{name}.pickle.gz").oom()
    assert verdict.verdict in (OomClass.NO_OOM, OomClass.CANNOT_TELL)
