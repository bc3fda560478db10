"""Replays of what PyTorch's own allocator recorded, on an emulated device, under the settings that it ran with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from memscope.analysis import load
from memscope.device.limits import limits_for
from memscope.replay.compare import recorded_run, reproduces, trusted
from memscope.replay.strategies import ReplayOptions, replay
from memscope.trace.schema import Action
from tests.oracles import ORACLE, needs_shared

pytestmark = needs_shared

RECORDINGS = sorted(ORACLE.glob("torch-*/*.pickle.gz"))
WITH_FAILURES = [path for path in RECORDINGS if "oom" in path.name or "fraction" in path.name]


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.name.removesuffix('.pickle.gz')}"


def check_that_exact_is_exact(path: Path) -> None:
    """A replay that is called exact goes through the recording's own bytes, and ends as it did."""
    lifetimes = load(path).device().lifetimes
    recorded, limits = recorded_run(lifetimes), limits_for(lifetimes)
    if not recorded.has_requests:
        return
    result = replay(lifetimes, "caching", ReplayOptions(limits=limits))
    if trusted([result], result, recorded, limits)[0].exactness != "exact":
        return
    assert reproduces(result, recorded, limits)
    series = lifetimes.usage.reserved_bytes
    assert series is not None
    if series[0]:
        return  # what was reserved is known, but not when
    # Between a segment and what was asked for, a recording has an event of its own; a replay does both at once.
    events = np.arange(lifetimes.first_event, lifetimes.first_event + len(result.usage) - 1)
    is_call = np.isin(lifetimes.trace.action[events], (Action.ALLOC, Action.FREE_COMPLETED, Action.OOM))
    at = np.flatnonzero(is_call) + 1
    assert result.usage.reserved_bytes is not None
    assert np.array_equal(result.usage.reserved_bytes[at], series[at])
    if recorded.fatal_event is None:
        assert result.n_ooms == recorded.n_ooms


@pytest.mark.parametrize("path", WITH_FAILURES, ids=name_of)
def test_a_recording_with_failures_is_replayed_to_the_byte_where_that_is_said(path: Path) -> None:
    check_that_exact_is_exact(path)


@pytest.mark.slow
@pytest.mark.parametrize("path", RECORDINGS, ids=name_of)
def test_every_recording_is_replayed_to_the_byte_where_that_is_said(path: Path) -> None:
    check_that_exact_is_exact(path)


def test_a_cap_is_inferred_as_the_program_set_it() -> None:
    path = ORACLE / "torch-2.11.0" / "oom_fraction.pickle.gz"
    spec = json.loads(path.with_name("oom_fraction.json").read_text())
    limits = limits_for(load(path).device().lifetimes)
    assert limits.memory_fraction == spec["spec"]["fraction"]
    assert limits.total_bytes == spec["fake_total_bytes"]
