"""``memscope verify``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from memscope.trace.builder import TraceBuilder
from memscope.trace.container import write_container
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import Action, BlockState
from tests.conftest import Outcome
from tests.naive_layout import random_layout
from tests.oracles import ORACLE, REAL, needs_shared

Run = Callable[..., Outcome]


MiB = 1 << 20


def test_verify_of_an_exact_recording_exits_0(memscope: Run, simulated_file: Path) -> None:
    outcome = memscope("verify", simulated_file, "--json")
    result = json.loads(outcome.out)
    assert outcome.code == 0
    assert result["exact"] is True
    assert result["first_divergence"] is None
    assert result["n_events_skipped"] == 0
    assert {"n_events_compared", "inferred", "devices"} <= set(result)
    assert "exact" in memscope("verify", simulated_file).out


def test_verify_of_another_allocators_recording_exits_3_and_says_where(memscope: Run, tmp_path: Path) -> None:
    # First fit is not best fit: the recording must diverge from PyTorch's choices.
    path = write_container(random_layout(11, 120).trace(), tmp_path / "first-fit.memscope")
    outcome = memscope("verify", path, "--json")
    assert outcome.code == 3
    divergence = json.loads(outcome.out)["first_divergence"]
    assert {"event", "expected", "got", "reason"} <= set(divergence)
    assert outcome.err.startswith("memscope: first-fit.memscope: device 0 diverges")
    assert outcome.err.count("\n") == 1
    assert "recorded" in memscope("verify", path).out


def test_a_trace_without_events_is_not_comparable(memscope: Run, tmp_path: Path) -> None:
    builder = TraceBuilder()
    builder.add_event(Action.SNAPSHOT, address=0, size_bytes=0)
    segment = builder.add_segment(address=1 << 30, size_bytes=2 * MiB, is_large=False)
    builder.add_block(segment, address=1 << 30, size_bytes=2 * MiB, requested_bytes=0, state=BlockState.INACTIVE)
    path = write_container(builder.build(TraceMetadata(source="synthetic", alloc_conf="")), tmp_path / "a.memscope")
    outcome = memscope("verify", path)
    assert outcome.code == 3
    assert "cannot be verified" in outcome.err


def _recorded_with_default_settings() -> list[Path]:
    """Oracle snapshots without settings or a memory fraction, and the real ones that start from an empty device."""
    chosen = []
    for path in sorted(ORACLE.glob("*/*.pickle.gz")):
        base = path.name.removesuffix(".pickle.gz").split(".part")[0]
        sidecar = json.loads((path.parent / f"{base}.json").read_text())
        lossy = base.startswith(("ring_truncated", "skip_", "state_only"))
        if not sidecar["PYTORCH_CUDA_ALLOC_CONF"] and not sidecar["spec"].get("fraction") and not lossy:
            chosen.append(path)
    return chosen + sorted(REAL.glob("lm-forward-seq*.gz")) + sorted(REAL.glob("lm-fwd-bwd-*.gz"))


@needs_shared
@pytest.mark.parametrize("path", _recorded_with_default_settings(), ids=lambda p: f"{p.parent.name}-{p.name}")
def test_every_default_recording_of_real_pytorch_is_replayed_exactly(memscope: Run, path: Path) -> None:
    outcome = memscope("verify", path, "--json")
    assert outcome.code == 0, outcome.err
    result = json.loads(outcome.out)
    assert result["exact"]
    assert result["n_events_skipped"] == 0
    for device in result["devices"]:
        assert device["recorded_peak_reserved_bytes"] == device["replayed_peak_reserved_bytes"]
