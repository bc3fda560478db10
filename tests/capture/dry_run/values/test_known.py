"""Values that a dry run knows, and those that it does not."""

from __future__ import annotations

import pytest

from tests.capture.programs import dry_run

torch = pytest.importorskip("torch")


def test_known_values_decide_and_unknown_ones_are_answered_and_counted() -> None:
    with dry_run() as rec:
        mask = torch.ones(4, 8, dtype=torch.long, device="cuda")
        assert bool(mask.all())
        assert (mask.sum() == 32).item()
        tokens = torch.randn(4, 8, device="cuda").argmax(-1)
        assert not bool((tokens == 3).any())
        assert (tokens.shape, tokens[0].item()) == ((4,), 1)
    assert rec.trace.metadata.extra["n_fixed_answers"] == 2
    assert any(note.startswith("2 reads of values") for note in rec.trace.metadata.notes)
