"""Pinned and shared memory of the host."""

from __future__ import annotations

import pytest

from memscope.trace.schema import Action
from tests.capture.programs import dry_run, sizes

torch = pytest.importorskip("torch")


def test_what_a_program_pins_it_is_told_is_pinned() -> None:
    with dry_run() as rec:
        plain = torch.arange(10)
        pinned = plain.pin_memory()
        assert pinned.is_pinned()
        assert pinned.pin_memory() is pinned
        assert pinned[2:].is_pinned()
        assert not plain.is_pinned()
        made = torch.empty(3, pin_memory=True)
        assert made.is_pinned()
        assert torch.randn(2048, 2048).pin_memory().is_pinned()
        assert not pinned.cuda(non_blocking=True).is_pinned()
    assert sizes(rec.trace, Action.ALLOC) == [80]


def test_a_model_of_the_device_is_shared() -> None:
    with dry_run():
        model = torch.nn.Linear(4, 4).cuda()
        assert model.share_memory() is model
        assert model.weight.is_shared()
        host = torch.nn.Linear(2048, 2048)  # its weight is fake
        assert host.share_memory() is host


def test_a_loader_pins_its_batches() -> None:
    from torch.utils.data import DataLoader, TensorDataset

    with dry_run():
        for (batch,) in DataLoader(TensorDataset(torch.arange(8.0)), batch_size=4, pin_memory=True):
            assert batch.is_pinned()
