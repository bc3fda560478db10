"""Outputs that a loop joins piece by piece, told from batches, inputs and caches."""

from __future__ import annotations

import numpy as np
import pytest

from memscope.attribution.phases._joined import LEAST_PIECE_BYTES, joined_rows
from tests.attribution.scripted import Script, categories

KiB = 1 << 10
JOIN = {"join": [("evaluate", "/home/me/evaluate.py", 7)]}


def evaluated(pieces: list[int], *, n_together: int = 1, to_end: bool = False) -> Script:
    """Passes whose outputs, of so many KiB, are joined to those before; with a batch for each pass."""
    script = Script(JOIN)
    total = 0
    for k, piece in enumerate(pieces):
        script.alloc(f"batch{k}", "batch", 4096 + k)
        for i in range(n_together):
            script.alloc(f"logits{k}-{i}", "forward", piece * KiB)
        if k:
            for i in range(n_together):
                script.alloc(f"joined{k}-{i}", "join", (total + piece) * KiB)
            for i in range(n_together):
                script.free(f"joined{k - 1}-{i}" if k > 1 else f"logits0-{i}", "user")
                script.free(f"logits{k}-{i}", "user")
        total += piece
        script.free(f"batch{k}", "user")
    return script


@pytest.mark.parametrize(("pieces", "n_together"), [([256] * 6, 1), ([256, 192, 320, 96, 128], 1), ([256] * 6, 3)])
def test_outputs_joined_after_each_pass_are_no_inputs(pieces: list[int], n_together: int) -> None:
    found = categories(evaluated(pieces, n_together=n_together))
    assert {found[name] for name in found if name.startswith("joined")} == {"activations"}
    assert {found[name] for name in found if name.startswith("batch")} == {"inputs"}


def test_a_second_evaluation_begins_anew() -> None:
    script = evaluated([128] * 5)
    script.free("joined4-0", "user")
    for k in range(4):
        script.alloc(f"again{k}", "join", (2 + k) * 128 * KiB)
        script.alloc(f"pass{k}", "forward")
        script.free(f"pass{k}", "forward")
        if k:
            script.free(f"again{k - 1}", "user")
    found = categories(script)
    assert {found[name] for name in found if name.startswith("again")} == {"activations"}


def growing_batches(sizes: list[int]) -> Script:
    """Batches of one line, each of which is dropped when the next is there, as in ``batch = next(batches)``."""
    script = Script()
    for k, size in enumerate(sizes):
        script.alloc(f"batch{k}", "batch", size)
        if k:
            script.free(f"batch{k - 1}", "user")
        script.alloc(f"inner{k}", "forward", 512)
        script.free(f"inner{k}", "forward")
    return script


def test_batches_that_get_longer_are_inputs() -> None:
    assert set(categories(growing_batches([KiB * n for n in (900, 970, 1100, 1180, 1300, 1420)])).values()) == {
        "inputs",
        "temporaries",
    }


def test_tokens_joined_to_a_prompt_are_inputs() -> None:
    """Eight bytes for each token of a sequence: what a pass is given, not what is kept of its outputs."""
    script = growing_batches([8 * 32 * n for n in range(1, 12)])
    assert LEAST_PIECE_BYTES > 8 * 32
    assert set(categories(script).values()) == {"inputs", "temporaries"}


def test_three_of_a_line_prove_nothing() -> None:
    lifetimes = evaluated([256] * 4).lifetimes()
    assert not joined_rows(lifetimes, np.flatnonzero(lifetimes.allocations.stack_id >= 0)).any()
