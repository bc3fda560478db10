"""Tensors that are left of a dry run that is over."""

from __future__ import annotations

import pytest

from memscope.errors import CaptureError
from tests.capture.programs import dry_run, small_model

torch = pytest.importorskip("torch")


def test_what_is_left_of_a_dry_run_can_be_looked_at_and_not_used() -> None:
    with dry_run():
        model = small_model()
        left = torch.ones(4, 8, device="cuda")
    assert (tuple(left.shape), left.dtype, len(left), left.numel()) == ((4, 8), torch.float32, 4, 32)
    assert sum(parameter.numel() for parameter in model.parameters()) > 0
    assert "of a dry run that has ended" in repr(left)
    for use in (
        lambda: left + 1,
        lambda: torch.sum(left),
        lambda: left.cpu(),
        lambda: model(torch.ones(4, 8)),
        lambda: torch.ones(4, 8) * left,
    ):
        with pytest.raises(CaptureError, match="belongs to a dry run that has ended"):
            use()


def test_another_dry_run_goes_on() -> None:
    with dry_run():
        left = torch.ones(4, device="cuda")
    with dry_run():
        assert (torch.ones(4, device="cuda") + 1).shape == (4,)
        with pytest.raises(CaptureError, match="has ended"):
            left + 1
