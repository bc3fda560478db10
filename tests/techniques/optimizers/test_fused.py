import pytest
import torch

from memscope.errors import UsageError
from tests.techniques.programs import apply, assert_as_changed, train


def fused(parameters):
    return torch.optim.AdamW(parameters, lr=1e-3, fused=True)


def adagrad(parameters):
    return torch.optim.Adagrad(parameters, lr=1e-3)


def test_steps_make_nothing_besides_as_with_the_fused_kernel():
    small = train(1, 8)  # the optimizer's step is the peak
    assert apply(small, "optimizer:fused").saved_bytes > 0
    assert_as_changed(small, "optimizer:fused", train(1, 8, make_optimizer=fused))


def test_what_is_fused_already_saves_nothing():
    found = apply(train(1, 8, make_optimizer=fused), "optimizer:fused")
    assert (found.saved_bytes, found.note) == (0, "the optimizer is fused already")


def test_another_optimizer_is_refused():
    with pytest.raises(UsageError, match="known for Adam and AdamW"):
        apply(train(1, 8, make_optimizer=adagrad), "optimizer:fused")
