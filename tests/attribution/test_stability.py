"""What attribution says of a trace does not change by importing, saving and loading it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from memscope.analysis import Analysis
from memscope.trace.container import read_container, write_container
from memscope.trace.open import open_trace
from memscope.trace.snapshot.write import write_snapshot
from memscope.trace.trace import Trace
from tests.attribution.from_stacks import without_identity
from tests.oracles import REAL, needs_shared

TRACES = Path(__file__).resolve().parents[2] / "traces"
SHIPPED = sorted(TRACES.glob("*.memscope"))
RECORDED = ("lm-fwd-bwd-seq200-bf16", "lm-windows-midlife", "rlhf-three-pools-no-trace")


def tables(trace: Trace) -> dict[str, object]:
    """Everything that attribution says about the peak of each device, in words and numbers."""
    analysis = Analysis(trace)
    found: dict[str, object] = {}
    for device in analysis.devices:
        index, moment, attribution = device.index, device.peak(), device.attribution
        found[f"{index} rows"] = (
            attribution.category.tolist(),
            attribution.source.tolist(),
            attribution.rule_id.tolist(),
        )
        for grouping in ("category", "site", "module", "rule", "tag"):
            found[f"{index} {grouping}"] = moment.by(grouping).to_dict()
        found[f"{index} unknown"] = moment.unknown_sites(10)
    return found


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_saving_and_loading_changes_nothing(path: Path, tmp_path: Path) -> None:
    trace = read_container(path)
    assert tables(read_container(write_container(trace, tmp_path / "again.memscope"))) == tables(trace)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_snapshot_carries_the_stacks_that_rules_need(path: Path, tmp_path: Path) -> None:
    """A torch snapshot has no owners: what it says is what stacks alone say."""
    blind = without_identity(read_container(path))
    snapshot = tmp_path / "a.pickle"
    write_snapshot(blind, snapshot)
    imported = open_trace(snapshot)
    before, after = Analysis(blind), Analysis(imported)
    assert np.array_equal(before.device(0).attribution.category, after.device(0).attribution.category)
    assert before.peak().by("site").to_dict() == after.peak().by("site").to_dict()


@needs_shared
@pytest.mark.parametrize("name", RECORDED)
def test_importing_and_saving_a_real_snapshot_changes_nothing(name: str, tmp_path: Path) -> None:
    trace = open_trace(REAL / f"{name}.pickle.gz")
    assert tables(read_container(write_container(trace, tmp_path / "a.memscope"))) == tables(trace)
