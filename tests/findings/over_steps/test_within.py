"""Which steps a device is judged by."""

from __future__ import annotations

import pytest

from memscope.analysis import Analysis
from memscope.attribution.steps import BACKWARD_STEPS, PASSES
from memscope.findings.over_steps.within import judged_steps
from tests.findings.traces import of_kind

torch = pytest.importorskip("torch")

from memscope.capture.recorder import Recorder  # noqa: E402

MiB = 1 << 20


def passed(n: int, *, feeds: bool = True, rows: tuple[int, ...] = (256,), keeps: bool = True) -> Analysis:
    """A model is called so often, and each output, of 4 KiB a row, is kept; without a batch, by its last output."""
    with Recorder(backend="dry-run", gpu="A100-40GB", conf="") as recorder, torch.no_grad():
        model = torch.nn.Linear(1024, 1024).to("cuda")
        kept, given = [], torch.zeros(rows[0], 1024, device="cuda")
        for k in range(n):
            if feeds:
                given = torch.randn(rows[k % len(rows)], 1024).to("cuda")
            output = model(given)
            given = given if feeds else output
            if keeps:
                kept.append(output)
    return Analysis(recorder.trace)


@pytest.mark.parametrize("n", [4, 5, 8])
@pytest.mark.parametrize("rows", [(256,), (256, 192, 320, 128, 288)])
def test_a_leak_of_a_few_passes_without_a_step_is_found(n: int, rows: tuple[int, ...]) -> None:
    (leak,) = of_kind(passed(n, rows=rows).findings(0), "leak")
    assert leak.sites[0].endswith("passed")


def test_passes_that_keep_nothing_have_no_leak() -> None:
    assert not of_kind(passed(8, keeps=False).findings(0), "leak")


def test_layers_that_are_called_one_by_one_are_no_steps() -> None:
    analysis = passed(6, feeds=False, rows=(256,))
    judged = judged_steps(analysis.device(0))
    assert judged.steps is None or judged.steps.source != PASSES


def test_too_few_steps_of_several_backward_passes_are_judged_by_those() -> None:
    with Recorder(backend="dry-run", gpu="A100-40GB", conf="") as recorder:
        model = torch.nn.Linear(64, 1024).to("cuda")
        optimizer = torch.optim.AdamW(model.parameters())
        kept = []
        for k in range(6):
            model(torch.randn(256, 64).to("cuda")).square().mean().backward()
            kept.append(torch.zeros(256, 1024, device="cuda"))
            if k % 2:
                optimizer.step()
                optimizer.zero_grad()
    analysis = Analysis(recorder.trace)
    steps = judged_steps(analysis.device(0)).steps
    assert steps is not None
    assert steps.source == BACKWARD_STEPS
    (leak,) = of_kind(analysis.findings(0), "leak")
    assert leak.evidence["bytes_per_step"] == MiB


def test_steps_that_alternate_are_told_one_by_one() -> None:
    (leak,) = of_kind(passed(16, rows=(256, 128)).findings(0), "leak")
    # 1 MiB and 0.5 MiB in turn, where a step of two passes would keep 1.5 MiB.
    assert MiB // 2 <= leak.evidence["bytes_per_step"] <= MiB
