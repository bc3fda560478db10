"""Training programs with and without a planted leak of 1 MiB a step, recorded by a dry run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from memscope.analysis import Analysis
from memscope.trace.tables import MarkTable

torch = pytest.importorskip("torch")

from memscope.capture.recorder import Recorder  # noqa: E402

ROWS, COLUMNS = 256, 1024
"""A tensor of this shape has 1 MiB."""


class Training:
    """A small network, its optimizer, and what the program keeps."""

    def __init__(self, optimizer: str = "AdamW") -> None:
        self.model = torch.nn.Sequential(
            torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, COLUMNS), torch.nn.Tanh()
        ).to("cuda")
        options = {"momentum": 0.9} if optimizer == "SGD" else {}
        self.optimizer = getattr(torch.optim, optimizer)(self.model.parameters(), lr=1e-3, **options)
        self.kept: list[torch.Tensor] = []
        self.cache: dict[int, torch.Tensor] = {}
        self.last: torch.Tensor | None = None

    def loss(self, rows: int = ROWS) -> tuple[torch.Tensor, torch.Tensor]:
        output = self.model(torch.randn(rows, 64, device="cuda"))
        return output.square().mean(), output

    def update(self, loss: torch.Tensor) -> None:
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def keeps_the_graphs_of_losses(training: Training, step: int) -> None:
    loss, _ = training.loss()
    loss.backward(retain_graph=True)
    training.optimizer.step()
    training.optimizer.zero_grad()
    training.kept.append(loss)


def fills_a_cache(training: Training, step: int) -> None:
    training.cache[step] = torch.zeros(ROWS, COLUMNS, device="cuda")
    training.update(training.loss()[0])


def keeps_outputs(training: Training, step: int) -> None:
    loss, output = training.loss()
    training.update(loss)
    training.kept.append(output.detach())


def skips_a_step_in_ten(training: Training, step: int) -> None:
    if step % 10 != 7:
        training.kept.append(torch.zeros(ROWS, COLUMNS, device="cuda"))
    training.update(training.loss()[0])


LEAKING: dict[str, Callable[[Training, int], None]] = {
    "losses": keeps_the_graphs_of_losses,
    "cache": fills_a_cache,
    "outputs": keeps_outputs,
}


def trains(training: Training, step: int) -> None:
    training.update(training.loss()[0])


def keeps_the_last_output(training: Training, step: int) -> None:
    loss, training.last = training.loss()
    training.update(loss)


def fills_a_cache_of_three(training: Training, step: int) -> None:
    key = step % 3
    if key not in training.cache:
        training.cache[key] = torch.zeros(ROWS, COLUMNS, device="cuda")
    training.update(training.loss()[0])


def accumulates_gradients(training: Training, step: int) -> None:
    training.loss()[0].backward()
    if step % 2:
        training.optimizer.step()
        training.optimizer.zero_grad()


def has_batches_of_any_length(training: Training, step: int) -> None:
    loss, training.last = training.loss((97 * step) % 301 + 20)
    training.update(loss)


def makes_a_second_optimizer_later(training: Training, step: int) -> None:
    if step == 2:
        training.optimizer = torch.optim.Adam(training.model.parameters(), lr=1e-3, amsgrad=True)
    training.update(training.loss()[0])


CLEAN: dict[str, Callable[[Training, int], None]] = {
    "plain": trains,
    "last-output": keeps_the_last_output,
    "cache-of-three": fills_a_cache_of_three,
    "accumulation": accumulates_gradients,
    "lengths": has_batches_of_any_length,
    "second-optimizer": makes_a_second_optimizer_later,
}


def record(
    step: Callable[[Training, int], None], n_steps: int, *, marked: bool = True, optimizer: str = "AdamW"
) -> Analysis:
    """Dry-run a program and analyse it, if asked for as if nobody had marked its steps."""
    with Recorder(backend="dry-run", gpu="A100-40GB", conf="") as recorder:
        training = Training(optimizer)
        for number in range(n_steps):
            step(training, number)
            recorder.step()
    trace = recorder.trace
    assert trace is not None
    return Analysis(trace if marked else replace(trace, marks=MarkTable.empty()))
