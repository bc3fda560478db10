"""Small programs that the capture tests record, and questions they ask of the traces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from memscope.trace.categories import Category
from memscope.trace.schema import Action
from memscope.trace.trace import Trace

torch = pytest.importorskip("torch")

from memscope.capture.recorder import Recorder  # noqa: E402


def dry_run(**options: object) -> Recorder:
    """A dry-run recorder that writes no file."""
    return Recorder(**{"backend": "dry-run", "gpu": "A100-40GB", "conf": "", **options})  # type: ignore[arg-type]


def sizes(trace: Trace, action: Action) -> list[int]:
    """Sizes of the events of one action, in order."""
    return [int(size) for size in trace.size_bytes[trace.action == action]]


def owners(trace: Trace) -> dict[int, tuple[Category, str]]:
    """Category and label by alloc event."""
    table = trace.owners
    return {
        int(event): (Category(int(category)), trace.strings[label])
        for event, category, label in zip(table.alloc_event, table.category, table.label_id, strict=True)
    }


def requested(trace: Trace, category: Category) -> dict[str, int]:
    """Requested bytes by label of everything that a category ever owned."""
    found: Counter[str] = Counter()
    for event, (owner, label) in owners(trace).items():
        if owner == category:
            found[label] += int(trace.size_bytes[event])
    return dict(found)


def live_bytes(trace: Trace) -> np.ndarray:
    """Requested bytes that are live after each event."""
    signs = np.select([trace.action == Action.ALLOC, trace.action == Action.FREE_COMPLETED], [1, -1], 0)
    return np.cumsum(signs * trace.size_bytes)


def small_model(device: str = "cuda") -> torch.nn.Module:
    """Three layers with a dropout and a norm."""
    nn = torch.nn
    return nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Dropout(0.1), nn.LayerNorm(256), nn.Linear(256, 10)).to(
        device
    )


def train(model: torch.nn.Module, steps: int = 2) -> None:
    """A few AdamW steps."""
    optimizer = torch.optim.AdamW(model.parameters())
    for _ in range(steps):
        inputs = torch.randn(32, 64).cuda()
        target = torch.randint(0, 10, (32,)).to("cuda", non_blocking=True)
        torch.nn.functional.cross_entropy(model(inputs), target).backward()
        optimizer.step()
        optimizer.zero_grad()


def requests_of(run: Callable[..., object], *inputs: Callable[[], torch.Tensor]) -> list[int]:
    """Sizes of what a function asks for in a dry run on an A100, in order; not its inputs, nor library workspaces."""
    with dry_run() as rec:
        square = torch.zeros(2, 2, device="cuda")
        torch.addmm(square[0], square, square)
        made = [make() for make in inputs]
        n_before = int(np.count_nonzero(rec.snapshot().action == Action.ALLOC))
        run(*made)
    return sizes(rec.trace, Action.ALLOC)[n_before:]


def on_device(*shape: int, dtype: str = "float32", grad: bool = False) -> Callable[[], torch.Tensor]:
    """Makes a tensor on the device."""
    return lambda: torch.empty(shape, dtype=getattr(torch, dtype), device="cuda", requires_grad=grad)
