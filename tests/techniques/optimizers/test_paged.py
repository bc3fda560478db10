import pytest
import torch

from memscope.errors import UsageError
from tests.techniques.optimizers.test_sgd import sgd
from tests.techniques.programs import apply, assert_as_changed, train


class Paged(torch.optim.Optimizer):
    """States of large tensors outside of the caching allocator."""

    def __init__(self, parameters):
        super().__init__(parameters, {})

    @torch.no_grad()
    def step(self, closure=None):
        for parameter in self.param_groups[0]["params"]:
            state = self.state[parameter]
            for name in () if state else ("state1", "state2"):
                device = "cpu" if parameter.numel() >= 1e5 else "cuda"
                state[name] = torch.zeros(parameter.shape, device=device)


def test_large_states_leave_the_allocator():
    assert_as_changed(train(1, 8), "optimizer:paged", train(1, 8, make_optimizer=Paged))


def test_what_is_moved_is_the_paged_states_both_ways():
    device = train(1, 8)
    (cost,) = apply(device, "optimizer:paged").costs
    model_elements = 5000 * 512 * 2 + 4 * 2 * 4 * 512 * 512  # embedding and head, and both products of four layers
    assert cost.moved_bytes_per_step == 2 * 2 * 4 * model_elements


def test_an_optimizer_without_state_is_refused():
    with pytest.raises(UsageError, match="keeps no state that could be paged"):
        apply(train(make_optimizer=sgd), "optimizer:paged")
