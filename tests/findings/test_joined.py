"""Outputs that a loop joins are named, with what their copies cost."""

from __future__ import annotations

import pytest

from memscope.analysis import Analysis
from memscope.findings.finding import Severity
from memscope.trace.categories import Category
from tests.findings.traces import of_kind

torch = pytest.importorskip("torch")

from memscope.capture.recorder import Recorder  # noqa: E402

MiB = 1 << 20


def evaluated(*, gpu: str = "A100-40GB", columns: int = 1024, n_passes: int = 8) -> Analysis:
    """An evaluation that joins the outputs of each pass, of a KiB for each column, to those before."""
    with Recorder(backend="dry-run", gpu=gpu, conf="") as recorder:
        model = torch.nn.Linear(64, columns).to("cuda")
        kept = None
        with torch.no_grad():
            for _ in range(n_passes):
                logits = model(torch.randn(256, 64).to("cuda"))
                kept = logits if kept is None else torch.cat((kept, logits))
    return Analysis(recorder.trace)


def test_joined_outputs_are_activations_and_named() -> None:
    analysis = evaluated()
    (found,) = of_kind(analysis.findings(0), "outputs-joined")
    # Seven joins of 2 to 8 MiB; the last is made beside the one of 7 MiB.
    assert found.evidence["n_copies"] == 7
    assert found.evidence["largest_bytes"] == 8 * MiB
    assert found.bytes == 15 * MiB
    assert "test_joined.py" in found.sites[0]
    assert found.severity is Severity.WARNING
    categories = analysis.device(0).attribution.category[list(found.rows)]
    assert set(categories.tolist()) == {Category.ACTIVATIONS}


def test_what_joins_outputs_is_told_once() -> None:
    assert not of_kind(evaluated(n_passes=12).findings(0), "larger-each-step")
