"""Intermediate results of an optimizer that make the peak."""

from __future__ import annotations

import pytest

from memscope.analysis import Analysis
from memscope.findings.finding import Finding
from tests.findings.programs import torch
from tests.findings.traces import of_kind

from memscope.capture.recorder import Recorder  # isort: skip

MiB = 1 << 20


def stepped(optimizer: str = "AdamW", **options: bool) -> Analysis:
    """Two steps of eight layers of 16 MiB each."""
    with Recorder(backend="dry-run", gpu="A100-40GB", conf="") as recorder:
        layers = [torch.nn.Linear(2048, 2048, bias=False) for _ in range(8)]
        model = torch.nn.Sequential(*layers).to("cuda")
        chosen = getattr(torch.optim, optimizer)(model.parameters(), lr=1e-3, **options)
        for _ in range(2):
            model(torch.randn(4, 2048, device="cuda")).sum().backward()
            chosen.step()
            chosen.zero_grad()
            recorder.step()
    assert recorder.trace is not None
    return Analysis(recorder.trace)


def found_in(analysis: Analysis) -> list[Finding]:
    return of_kind(analysis.opinions(0).findings, "foreach-temporaries")


def test_temporaries_of_all_parameters_at_the_peak_are_found_with_what_a_fused_step_saves() -> None:
    analysis = stepped()
    (found,) = found_in(analysis)
    assert found.bytes == 8 * 16 * MiB
    assert found.evidence["n_allocations"] == 8
    assert "fused=True" in found.fix
    # Applied, it is as promised.
    fused = stepped(fused=True)
    saved = analysis.device(0).peak_reserved().reserved_bytes - fused.device(0).peak_reserved().reserved_bytes
    assert found.returned_bytes == saved > 0


@pytest.mark.parametrize("options", [{"fused": True}, {"foreach": False}])
def test_other_ways_of_stepping_make_none(options: dict[str, bool]) -> None:
    assert not found_in(stepped(**options))


def test_an_optimizer_without_a_fused_way_is_not_told_to_use_one() -> None:
    (found,) = found_in(stepped("NAdam"))
    assert "fused" not in found.fix
    assert "foreach=False" in found.fix
