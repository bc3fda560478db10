"""Models that are live twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from memscope.analysis import Analysis
from memscope.findings.finding import Finding, Severity
from tests.findings.programs import torch
from tests.findings.traces import of_kind

from memscope.capture.recorder import Recorder  # isort: skip

MiB = 1 << 20
WEIGHTS = 8 * 16 * MiB


def new_model() -> Any:
    layers = [torch.nn.Linear(2048, 2048, bias=False) for _ in range(8)]
    return torch.nn.Sequential(*layers).to("cuda")


def copy_of(model: Any) -> dict[str, Any]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def recorded(program: Callable[[], object]) -> Analysis:
    with Recorder(backend="dry-run", gpu="A100-40GB", conf="") as recorder:
        kept = program()
    assert recorder.trace is not None
    del kept
    return Analysis(recorder.trace)


def found_in(analysis: Analysis, kind: str) -> list[Finding]:
    return of_kind(analysis.opinions(0).findings, kind)


def train(model: Any, n_steps: int = 2) -> Any:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for _ in range(n_steps):
        model(torch.randn(4, 2048, device="cuda")).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return optimizer


def made_again() -> object:
    """A notebook's cell that is run twice: the first model is gone, its output is not."""
    outputs = []
    for _ in range(2):
        model = new_model()
        outputs.append(model(torch.randn(4, 2048, device="cuda")))
        del model
    return outputs


def made_again_after_the_output_is_dropped() -> object:
    for _ in range(2):
        output = None
        model = new_model()
        output = model(torch.randn(4, 2048, device="cuda"))
        del model
        output = output.detach()
    return output


def resumed() -> object:
    """A checkpoint's weights stay on the device beside those that they were loaded into."""
    model = new_model()
    checkpoint = copy_of(model)
    model.load_state_dict(checkpoint)
    train(model, 3)
    return model, checkpoint


def resumed_and_dropped() -> object:
    model = new_model()
    model.load_state_dict(copy_of(model))
    train(model, 3)
    return model


def test_a_model_that_an_output_keeps_is_found_when_it_is_made_again() -> None:
    (found,) = found_in(recorded(made_again), "model-made-again")
    assert (found.bytes, found.severity) == (WEIGHTS, Severity.WARNING)
    assert found.evidence["n_allocations"] == 8
    assert "test_second_copies.py" in found.sites[0]
    assert found.returned_bytes is not None
    assert found.returned_bytes >= WEIGHTS - 32 * MiB


def test_a_model_made_again_after_the_first_is_gone_is_none() -> None:
    assert not found_in(recorded(made_again_after_the_output_is_dropped), "model-made-again")


def test_a_checkpoint_that_stays_beside_the_weights_is_found() -> None:
    (found,) = found_in(recorded(resumed), "copy-of-weights")
    assert (found.bytes, found.evidence["n_allocations"]) == (WEIGHTS, 8)
    assert found.returned_bytes == WEIGHTS
    assert "map_location='cpu'" in found.fix


def test_several_copies_of_one_line_are_counted_together() -> None:
    def program() -> object:
        model = new_model()
        return model, [copy_of(model) for _ in range(3)], train(model, 3)

    (found,) = found_in(recorded(program), "copy-of-weights")
    assert (found.bytes, found.evidence["n_copies"]) == (3 * WEIGHTS, 3)
    assert "are 3 more copies of the weights" in found.title


class Cached(torch.nn.Module):  # type: ignore[misc, name-defined]
    """A layer with a buffer that every use replaces."""

    def __init__(self) -> None:
        super().__init__()
        self.project = torch.nn.Linear(2048, 2048, bias=False)
        self.register_buffer("cache", torch.zeros(2048, 2048))

    def forward(self, x: Any) -> Any:
        self.cache = self.cache.clone()
        self.cache[:] = self.project(x)
        return torch.nn.functional.gelu(self.cache)


def test_a_buffer_that_every_step_replaces_is_no_model_made_again() -> None:
    def program() -> object:
        layer = Cached().to("cuda")
        return layer, [layer(torch.randn(2048, 2048, device="cuda")) for _ in range(10)]

    assert not found_in(recorded(program), "model-made-again")


def test_a_checkpoint_that_is_dropped_after_loading_is_none() -> None:
    assert not found_in(recorded(resumed_and_dropped), "copy-of-weights")


def test_plain_training_has_no_copy() -> None:
    analysis = recorded(lambda: train(new_model(), 3))
    assert not found_in(analysis, "copy-of-weights")
    assert not found_in(analysis, "model-made-again")


def test_a_model_trained_beside_another_of_other_sizes_is_none() -> None:
    def program() -> object:
        first, second = new_model(), torch.nn.Linear(4096, 4096, bias=False).to("cuda")
        second(torch.randn(4, 4096, device="cuda")).sum().backward()
        return first, second, train(first)

    assert not found_in(recorded(program), "model-made-again")
