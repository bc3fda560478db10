import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from memscope.errors import UsageError
from tests.techniques.programs import apply, assert_as_changed, dry_run, generate, peaks, train


@pytest.mark.parametrize("every", [1, 2])
def test_layers_are_computed_again_as_in_a_checkpointed_program(every):
    large = train(32, 128)
    assert apply(large, f"checkpoint:every={every}").saved_bytes > 0
    assert_as_changed(large, f"checkpoint:every={every}", train(32, 128, every=every), within=0.02)


@pytest.mark.parametrize("by_sequential", [False, True])
def test_a_program_that_checkpoints_already_is_left_as_it_is(by_sequential):
    device = train(every=1) if by_sequential else checkpointed_by_layer()
    result = apply(device, "checkpoint:every=1")
    assert result.saved_bytes == 0
    assert result.peaks == peaks(device)
    assert result.note == "layers save next to nothing: they are computed again already"


def checkpointed_by_layer():
    """Three linear layers in one model whose forward pass saves what goes into each, and no more."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Sequential(nn.Linear(256, 256), nn.Tanh()) for _ in range(3))

        def forward(self, x):
            for layer in self.layers:
                x = checkpoint(layer, x, use_reentrant=False)
            return x

    def work():
        model = Net().cuda()
        optimizer = torch.optim.Adam(model.parameters())
        for _ in range(2):
            model(torch.randn(64, 256, device="cuda")).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        return model, optimizer

    return dry_run(work)


def test_the_work_is_the_layers_share_of_a_third():
    (cost,) = apply(train(), "checkpoint:every=1").costs
    layers, head = 4 * 8 * 512 * 512, 5000 * 512
    assert cost.recomputed_frac == pytest.approx(layers / (layers + head) / 3)


def test_a_program_that_trains_nothing_is_refused():
    with pytest.raises(UsageError, match="no forward pass with a backward pass"):
        apply(generate(), "checkpoint:every=1")


@pytest.mark.parametrize("text", ["checkpoint", "checkpoint:every=0", "checkpoint:each=1", "checkpoint:every=x"])
def test_what_is_no_number_of_layers_is_refused(text):
    with pytest.raises(UsageError, match="is not every=N with a whole number of at least 1"):
        apply(train(), text)
