"""Values that a dry run knows, and those that it does not."""

from __future__ import annotations

import copy

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


def test_masks_and_positions_of_long_prompts_are_known() -> None:
    with dry_run() as rec:
        mask = torch.ones(8, 8192, dtype=torch.long, device="cuda")
        assert bool((mask == 1).all())
        positions = torch.arange(40_000, device="cuda")[None].expand(4, -1)
        steps = torch.diff(positions, prepend=positions[:, :1] - 1, dim=-1)
        assert ((steps != 1).cumsum(-1)[:, -1] == 0).all().item()
    assert rec.trace.metadata.extra["n_fixed_answers"] == 0


def test_values_are_finite_in_whatever_words_a_program_asks() -> None:
    with dry_run() as rec:
        for side in (8, 2048):  # the larger one's masks are followed by one number for all
            x = torch.randn(side, side, device="cuda")
            assert torch.isfinite(x).all().item()
            assert torch.isfinite(x).all(1).all().item()
            assert not (~torch.isfinite(x)).any()
            assert not (torch.isnan(x) | torch.isinf(x)).any()
            assert torch.isnan(x).sum().item() == 0
            assert not (x != x).any()
            assert not (x == float("inf")).any()
    assert rec.trace.metadata.extra["n_fixed_answers"] == 0


def test_a_mask_of_one_answer_is_forgotten_when_something_unknown_is_written_into_it() -> None:
    with dry_run() as rec:
        x = torch.randn(2048, 2048, device="cuda")
        mask = torch.isfinite(x)
        mask.logical_and_(x > 0)
        assert not bool(mask.all())
    assert rec.trace.metadata.extra["n_fixed_answers"] == 1


def test_copies_of_a_tensor_know_what_it_knows_and_no_more() -> None:
    with dry_run() as rec:
        counts = torch.nn.Parameter(torch.ones(1, 4, device="cuda"))
        copied = copy.deepcopy(counts)
        assert (copied.device.type, copied.shape) == ("cuda", (1, 4))
        with torch.no_grad():
            copied.add_(1)
        assert (counts == 1).all().item()
        assert (copied == 2).all().item()
    assert rec.trace.metadata.extra["n_fixed_answers"] == 0
