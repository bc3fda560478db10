"""Every reference snapshot of real PyTorch is reproduced event by event, under whatever settings it was recorded."""

import json

import pytest

from memscope.replay.verify.verify import verify
from memscope.trace.snapshot.read import read_snapshot
from tests.oracles import ORACLE, REAL, needs_shared

PATHS = sorted(ORACLE.glob("*/*.pickle.gz"))
LOSSY = {"skip_segments": "segment events were left out"}
REAL_WITH_EVENTS = (
    "lm-forward-seq100",
    "lm-forward-seq200",
    "lm-forward-seq200-bf16",
    "lm-forward-torch2.11",
    "lm-fwd-bwd-seq100",
    "lm-fwd-bwd-seq150",
    "lm-fwd-bwd-seq200-bf16",
    "lm-train-midlife-torch2.10",
    "lm-train-torch2.6",
    "lm-windows-midlife",
)


def name_of(path):
    return f"{path.parent.name}/{path.name.removesuffix('.pickle.gz')}"


@needs_shared
@pytest.mark.parametrize("path", PATHS, ids=name_of)
def test_oracle_snapshot_is_exact(path):
    name = path.name.removesuffix(".pickle.gz")
    result = verify(read_snapshot(path))
    if name in LOSSY:
        assert not result.exact
        assert LOSSY[name] in result.devices[0].not_comparable
    else:
        assert result.first_divergence is None
        assert result.exact


@needs_shared
@pytest.mark.parametrize("name", REAL_WITH_EVENTS)
def test_recording_of_a_real_gpu_is_exact(name):
    result = verify(read_snapshot(REAL / f"{name}.pickle.gz"))
    assert result.first_divergence is None
    assert result.exact


@needs_shared
def test_replayed_peak_is_the_one_that_memory_stats_gave():
    path = ORACLE / "torch-2.15.0" / "phases_default.pickle.gz"
    stats = json.loads((path.parent / "phases_default.json").read_text())["memory_stats"]
    device = verify(read_snapshot(path)).devices[0]
    assert device.replayed_peak_reserved_bytes == stats["reserved_bytes.all.peak"]
    assert device.replayed_reserved_bytes == stats["reserved_bytes.all.current"]
