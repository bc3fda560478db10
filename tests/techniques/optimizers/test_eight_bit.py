import torch

from tests.techniques.programs import apply, assert_as_changed, train


class EightBit(torch.optim.Optimizer):
    """States laid out as bitsandbytes lays them out."""

    def __init__(self, parameters):
        super().__init__(parameters, {})
        self.tables = None

    @torch.no_grad()
    def step(self, closure=None):
        if self.tables is None:
            self.tables = torch.zeros(256, device="cuda"), torch.zeros(256, device="cuda")
        for parameter in self.param_groups[0]["params"]:
            state, n = self.state[parameter], parameter.numel()
            for name in () if state else ("state1", "state2"):
                dtype = torch.uint8 if n >= 4096 else torch.float32
                state[name] = torch.zeros_like(parameter, dtype=dtype)
                if n >= 4096:
                    state[f"absmax of {name}"] = torch.zeros((n + 255) // 256, device="cuda")


def test_states_are_bytes_with_scales():
    assert_as_changed(train(1, 8), "optimizer:8bit", train(1, 8, make_optimizer=EightBit))


def test_bytes_already_save_nothing():
    found = apply(train(1, 8, make_optimizer=EightBit), "optimizer:8bit")
    assert (found.saved_bytes, found.note) == (0, "the optimizer's states have 8 bits already")
