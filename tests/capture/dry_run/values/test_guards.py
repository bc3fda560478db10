"""Questions of a program whose wrong answer would end it."""

from __future__ import annotations

import pytest

from tests.capture.programs import dry_run

torch = pytest.importorskip("torch")


def test_a_guard_is_answered_so_that_nothing_is_raised() -> None:
    with dry_run() as rec:
        x = torch.randn(8, device="cuda")
        if not (x > 0).all():
            raise ValueError("not positive")
        if (x > 1).any():
            raise ValueError(f"above one, of {x.shape}")
        exec("assert (x < 5).all()", {"x": x})  # as Python compiles it: pytest rewrites those of its own files
        if not (x < 5).all().item():
            print("large")
            raise SystemExit(1)
        torch._check_tensor_all(x < 5)
        assert torch.distributions.Normal(x, x.exp()).rsample().shape == (8,)
    assert rec.trace.metadata.extra["n_fixed_answers"] >= 5


def test_a_question_that_is_no_guard_is_answered_with_no() -> None:
    with dry_run():
        x = torch.randn(8, device="cuda")
        answers = [bool((x > 0).any())]
        if (x > 0).any():
            answers.append(True)
        assert answers == [False]
