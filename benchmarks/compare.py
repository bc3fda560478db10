"""Planted changes, and what ``diff`` says of them: dry runs of a small Llama, no GPU needed.

Each planted change is one line of this file. ``diff`` must put at least 95 % of what the change added on that line or
on the modules that it switches. What ``check`` finds is ``benchmarks/gate.py``.

    python benchmarks/compare.py
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.utils.checkpoint import checkpoint

import memscope
from memscope.analysis import Analysis
from memscope.compare.diff import diff_moments
from memscope.compare.difference import By, Difference, Row
from memscope.compare.moments import highest_in_step

N_LAYERS, HIDDEN, MiB = 6, 256, 1 << 20


@dataclass(frozen=True)
class Program:
    """A training run, and what is changed in it."""

    lengths: tuple[int, ...] = (128,) * 4
    batch: int = 8
    n_layers: int = N_LAYERS
    n_checkpointed: int = N_LAYERS
    leaked_bytes: int = 0
    extra_bytes: int = 0
    conf: str = ""


class Block(torch.nn.Module):
    """Attention and a feed-forward network."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = torch.nn.MultiheadAttention(HIDDEN, 4, batch_first=True)
        self.mlp = torch.nn.Sequential(
            torch.nn.Linear(HIDDEN, 4 * HIDDEN), torch.nn.GELU(), torch.nn.Linear(4 * HIDDEN, HIDDEN)
        )
        self.norm = torch.nn.LayerNorm(HIDDEN)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Both, with their residuals."""
        x = x + self.attn(x, x, x, need_weights=False)[0]
        return x + self.mlp(self.norm(x))


class Model(torch.nn.Module):
    """Some blocks, the first of them checkpointed."""

    def __init__(self, n_layers: int, n_checkpointed: int) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(Block() for _ in range(n_layers))
        self.n_checkpointed = n_checkpointed

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One after the other."""
        for i, layer in enumerate(self.layers):
            x = checkpoint(layer, x, use_reentrant=False) if i < self.n_checkpointed else layer(x)
        return x


def record(program: Program) -> Analysis:
    """Record a program."""
    with memscope.record(backend="dry-run", gpu="24GiB", conf=program.conf) as recorder:
        model = Model(program.n_layers, program.n_checkpointed).cuda()
        optimizer = torch.optim.AdamW(model.parameters())
        extra = torch.empty(program.extra_bytes, dtype=torch.uint8, device="cuda") if program.extra_bytes else None
        kept = []
        for length in program.lengths:
            batch = torch.randn(program.batch, length, HIDDEN, device="cuda")
            model(batch).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            if program.leaked_bytes:
                kept.append(torch.empty(program.leaked_bytes, dtype=torch.uint8, device="cuda"))
            recorder.step()
        del extra, kept
    return Analysis(recorder.trace, "run")


def line_of(text: str) -> str:
    """Where a line of this file is."""
    lines = Path(__file__).read_text().splitlines()
    return f"{Path(__file__).name}:{next(i for i, line in enumerate(lines, 1) if text in line)}"


def share(difference: Difference, is_right: Callable[[Row], bool]) -> float:
    """Of what grew or shrank, by bytes, the share on rows that are right."""
    rows = [row for row in difference.rows if row.delta_bytes and not row.is_rounding]
    total = sum(abs(row.delta_bytes) for row in rows)
    return sum(abs(row.delta_bytes) for row in rows if is_right(row)) / total if total else 1.0


def planted() -> list[tuple[str, float]]:
    """Each planted change, and the share of its bytes that ``diff`` puts where it belongs."""
    base = Program()
    before = record(base)
    found = []
    off = record(replace(base, n_checkpointed=N_LAYERS - 3))
    # What the peaks' place in the backward pass changes is gone or shrunk; what grew is what is no longer thrown away.
    difference = diff_moments(highest_in_step(before.device(), "1"), highest_in_step(off.device(), "1"), By.OWNER)
    unchecked = tuple(f"layers.{i}" for i in range(N_LAYERS - 3, N_LAYERS))
    grown = [row for row in difference.rows if row.delta_bytes > 0 and not row.is_rounding]
    total = sum(row.delta_bytes for row in grown)
    right = sum(row.delta_bytes for row in grown if row.key.startswith(unchecked))
    found.append(("checkpointing off on three layers", right / total))

    more = record(replace(base, batch=base.batch + 1))
    difference = diff_moments(highest_in_step(before.device(), "1"), highest_in_step(more.device(), "1"))
    # A batch of one more scales what depends on it by 9/8, and nothing else.
    scaled = share(difference, lambda row: row.a_bytes > 0 and abs(row.b_bytes / row.a_bytes - 9 / 8) < 0.02)
    found.append(("a batch of one more", scaled))

    leaking = record(replace(base, leaked_bytes=MiB))
    device = leaking.device()
    difference = diff_moments(highest_in_step(device, "1"), highest_in_step(device, "3"))
    where = line_of("kept.append(")
    found.append(("a leak of 1 MiB a step", share(difference, lambda row: where in (row.site or ""))))

    rounded = record(replace(base, conf="roundup_power2_divisions:4"))
    difference = diff_moments(before.peak(), rounded.peak())
    added = difference.rows[-1].delta_bytes
    found.append(("a changed setting (rounding)", added / difference.delta_bytes if difference.delta_bytes else 0.0))
    return found


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    is_good = True
    for name, frac in planted():
        is_good &= frac >= 0.95
        print(f"{name:36s} {100 * frac:6.1f} % of its bytes where they belong (at least 95)")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
