import torch

from tests.techniques.optimizers.test_sgd import sgd
from tests.techniques.programs import apply, assert_as_changed, train


class OnHost(torch.optim.Optimizer):
    def __init__(self, parameters):
        super().__init__(parameters, {})

    @torch.no_grad()
    def step(self, closure=None):
        for parameter in self.param_groups[0]["params"]:
            self.state[parameter].setdefault("exp_avg", torch.zeros(parameter.shape))


def test_states_and_steps_leave_the_device():
    assert_as_changed(train(1, 8), "offload:optimizer", train(1, 8, make_optimizer=OnHost))


def test_gradients_and_weights_are_moved_each_step():
    device = train(1, 8)
    (cost,) = apply(device, "offload:optimizer").costs
    one_layer = 2 * 512 + 2 * (4 * 512 * 512) + 4 * 512 + 512
    assert cost.moved_bytes_per_step == 2 * 4 * (5000 * 512 * 2 + 4 * one_layer)


def test_nothing_on_the_device_saves_nothing():
    found = apply(train(make_optimizer=sgd), "offload:optimizer")
    assert (found.saved_bytes, found.note) == (0, "the optimizer has nothing on the device already")
