import pytest
import torch
from torch import nn

from memscope.errors import UsageError
from tests.techniques.programs import apply, assert_as_changed, generate, train


class Kept(nn.Module):
    """A GPT-2 product whose matrix is bytes and a scale for each row, made whole before it is used."""

    def __init__(self, product):
        super().__init__()
        self.shape, self.bias = product.weight.shape, product.bias
        self.register_buffer("numbers", torch.zeros(self.shape, dtype=torch.int8))
        self.register_buffer("scale", torch.zeros(self.shape[0], dtype=torch.float16))

    def forward(self, x):
        whole = torch.empty(self.shape, dtype=torch.float16, device=x.device)
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), whole).view(*x.shape[:-1], self.shape[1])


def to_bytes(model):
    for block in model.transformer.h:
        for owner, name in ((block.attn, "c_attn"), (block.attn, "c_proj"), (block.mlp, "c_fc"), (block.mlp, "c_proj")):
            setattr(owner, name, Kept(getattr(owner, name)))


def test_matrices_are_bytes_as_in_a_quantised_model():
    assert_as_changed(generate(), "quantize:int8", generate(changes=to_bytes))


def test_fewer_bits_take_less_and_groups_cost():
    found = {
        kind: apply(generate(), f"quantize:{kind}").peaks.allocated_bytes for kind in ("int8", "nf4", "int4:group=8")
    }
    assert found["nf4"] < found["int8"]
    assert found["int4:group=8"] > apply(generate(), "quantize:int4").peaks.allocated_bytes


def test_trained_matrices_are_refused():
    with pytest.raises(UsageError, match="every matrix is trained in this trace"):
        apply(train(), "quantize:nf4")


@pytest.mark.parametrize("text", ["quantize", "quantize:int3", "quantize:fp8:group=3"])
def test_unknown_formats_are_refused(text):
    with pytest.raises(UsageError, match="quantize:"):
        apply(generate(), text)
