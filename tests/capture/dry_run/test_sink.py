"""Whose allocations are in a dry run of a training program."""

from __future__ import annotations

import numpy as np
import pytest

from memscope.analysis import Analysis
from memscope.attribution.attribution import attribute
from memscope.lifetimes.device import DeviceLifetimes
from memscope.trace.categories import Category
from memscope.trace.schema import NONE_ID, Action
from memscope.trace.trace import Trace
from tests.capture.programs import dry_run, owners, requested, small_model, train

torch = pytest.importorskip("torch")


def test_every_parameter_gradient_and_state_has_its_owner_to_the_byte() -> None:
    with dry_run() as rec:
        model = small_model()
        train(model, steps=1)
    parameters = {name: parameter.numel() * 4 for name, parameter in model.named_parameters()}
    assert requested(rec.trace, Category.WEIGHTS) == parameters
    assert requested(rec.trace, Category.GRADIENTS) == {f"{name}.grad": size for name, size in parameters.items()}
    states = requested(rec.trace, Category.OPTIMIZER_STATE)
    assert states == {
        f"{key} of {name}": size for name, size in parameters.items() for key in ("exp_avg", "exp_avg_sq")
    }


def test_an_owner_has_the_type_and_shape_of_its_tensor() -> None:
    with dry_run() as rec:
        model = torch.nn.Linear(64, 32, bias=False).to("cuda", torch.bfloat16)
        model(torch.randn(8, 64, device="cuda", dtype=torch.bfloat16)).sum().backward()
    owners, strings = rec.trace.owners, rec.trace.strings
    tensors = {
        strings[label]: strings[tensor]
        for label, tensor in zip(owners.label_id.tolist(), owners.tensor_id.tolist(), strict=True)
        if tensor != NONE_ID
    }
    assert tensors["weight"] == tensors["weight.grad"] == "bfloat16 [32, 64]"
    peak = Analysis(rec.trace).peak()
    assert "bfloat16 [32, 64]" in set(peak.allocations()["tensor"].dropna())
    assert peak.dtypes("category")["weights"] == ("bfloat16",)


def test_activations_inputs_workspaces_and_temporaries_are_told_apart() -> None:
    with dry_run() as rec:
        train(small_model(), steps=1)
    assert requested(rec.trace, Category.INPUTS) == {"copied to the device": 32 * 64 * 4 + 32 * 8}
    activations = requested(rec.trace, Category.ACTIVATIONS)
    assert activations["1"] == 32 * 256 * 4
    assert activations["2"] == 32 * 256  # the dropout's mask, one byte for each element
    release = tuple(int(part) for part in torch.__version__.split(".")[:2])
    kept = {"cuBLAS workspace (modelled)": 2 * 8_519_680} if release < (2, 14) else {}
    kept |= {"cuBLASLt workspace (modelled)": 1 << 20} if release < (2, 13) else {}  # later given back at once
    assert requested(rec.trace, Category.WORKSPACE) == kept
    assert set(requested(rec.trace, Category.TEMPORARIES)) >= {"backward", "optimizer"}


def test_adamw_takes_the_foreach_path_as_on_cuda() -> None:
    with dry_run() as rec:
        model = small_model()
        train(model, steps=1)
    trace = rec.trace
    names = {frame.name for stack in range(len(trace.stacks)) for frame in trace.stack(stack)}
    assert "_multi_tensor_adamw" in names or "_multi_tensor_adam" in names


def test_checkpointing_saves_activations() -> None:
    from torch.utils.checkpoint import checkpoint

    def peak(use_checkpoint: bool) -> int:
        with dry_run():
            layers = torch.nn.ModuleList([torch.nn.Linear(512, 512) for _ in range(6)]).cuda()
            hidden = torch.randn(4096, 512, device="cuda", requires_grad=True)
            for layer in layers:
                block = torch.nn.Sequential(layer, torch.nn.GELU())
                hidden = checkpoint(block, hidden, use_reentrant=False) if use_checkpoint else block(hidden)
            hidden.sum().backward()
            return torch.cuda.max_memory_allocated()

    activation = 4096 * 512 * 4
    assert peak(False) - peak(True) >= 3 * activation


def test_a_block_that_is_computed_again_has_no_inputs() -> None:
    from torch.utils.checkpoint import checkpoint

    with dry_run() as rec:
        blocks = [torch.nn.Linear(256, 256).cuda() for _ in range(3)]
        x = torch.randn(64, 256, device="cuda").requires_grad_()

        class Net(torch.nn.Module):
            def forward(self, x):
                for block in blocks:
                    x = checkpoint(block, x, use_reentrant=True)
                return x

        Net()(x).sum().backward()
    assert requested(rec.trace, Category.INPUTS) == {"argument 0": 64 * 256 * 4}


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_what_a_checkpoint_computes_again_goes_by_its_place_in_the_model(use_reentrant: bool) -> None:
    from torch.utils.checkpoint import checkpoint

    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = torch.nn.Linear(64, 64), torch.nn.Linear(64, 64)
            self.register_buffer("scale", torch.ones(64))

        def forward(self, x):
            return x + self.b(torch.relu(self.a(x))) * self.scale

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.ModuleList(Block() for _ in range(3))

        def forward(self, x, checkpoints):
            for layer in self.layers:
                x = checkpoint(layer, x, use_reentrant=use_reentrant) if checkpoints else layer(x)
            return x

    def recorded(checkpoints: bool) -> Trace:
        with dry_run() as rec:
            model = Net().cuda()
            optimizer = torch.optim.Adam(model.parameters())
            for _ in range(2):
                x = torch.randn(16, 64, device="cuda").requires_grad_()
                model(x, checkpoints).sum().backward()
                optimizer.step()
                optimizer.zero_grad()
        return rec.trace

    plain, again = recorded(False), recorded(True)
    for category in (Category.WEIGHTS, Category.GRADIENTS, Category.OPTIMIZER_STATE):
        assert requested(again, category) == requested(plain, category)
    assert "exp_avg of layers.2.a.weight" in requested(again, Category.OPTIMIZER_STATE)
    labels = {label for _, label in owners(again).values()}
    assert labels.isdisjoint({"a", "b", "Block", "Linear", "scale", "a.weight"})
    assert {f"layers.{i}.{name}" for i in range(3) for name in "ab"} <= labels


def test_memory_given_to_a_parameter_is_the_parameters() -> None:
    with dry_run() as rec:
        model = torch.nn.Linear(64, 32, bias=False).half().to("cuda")
        for parameter in model.parameters():
            parameter.data = parameter.data.float()
    assert sorted(owners(rec.trace).values()) == [(Category.WEIGHTS, "Linear.weight")] * 2


def test_a_part_of_a_larger_piece_does_not_make_it_a_parameters() -> None:
    with dry_run() as rec:
        model = torch.nn.Linear(64, 32, bias=False).to("cuda")
        flat = torch.zeros(64 * 32 * 4, device="cuda")
        model.weight.data = flat[: 64 * 32].view(32, 64)
    assert [category for category, _ in owners(rec.trace).values()].count(Category.WEIGHTS) == 1


class _Attention(torch.nn.Module):
    """Keeps keys in a buffer and values in a plain tensor, as models written by hand do."""

    def __init__(self) -> None:
        super().__init__()
        self.project = torch.nn.Linear(64, 64)
        self.register_buffer("cache_k", torch.zeros(4, 256, 64, device="cuda"))
        self.cache_v = torch.zeros(4, 256, 64, device="cuda")
        self.register_buffer("scale", torch.ones(2048, device="cuda"))
        self.register_buffer("table", torch.ones(4096, device="cuda"), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.cache_k, self.scale, self.table = self.cache_k.clone(), self.scale.clone(), self.table.clone()
        self.cache_k[:, :16] = self.project(x)
        return self.cache_k.sum()


def test_what_is_assigned_to_a_buffer_is_that_buffers() -> None:
    with dry_run() as rec:
        model = _Attention().to("cuda")
        with torch.no_grad():
            model(torch.randn(4, 16, 64, device="cuda"))
    kinds = {label.rpartition(".")[2]: category for category, label in owners(rec.trace).values()}
    expected = {"cache_k": "KV_CACHE", "cache_v": "KV_CACHE", "scale": "WEIGHTS", "table": "WORKSPACE"}
    assert {name: kinds[name].name for name in expected} == expected


def test_caches_that_a_graph_keeps_are_activations() -> None:
    with dry_run() as rec:
        model = _Attention().to("cuda")
        for _ in range(3):
            model(torch.randn(4, 16, 64, device="cuda")).backward(retain_graph=True)
    category = attribute(DeviceLifetimes(rec.trace, 0)).category
    copies = rec.trace.size_bytes[rec.trace.action == Action.ALLOC] == 4 * 256 * 64 * 4
    assert np.count_nonzero(category[copies] == Category.ACTIVATIONS) >= 3


def test_a_function_is_recomputed_in_the_precision_of_its_first_pass() -> None:
    from torch.utils.checkpoint import checkpoint

    with dry_run():
        weight = torch.randn(64, 64, device="cuda", requires_grad=True)
        x = torch.randn(8, 64, device="cuda", requires_grad=True)
        for use_reentrant in (False, True):
            with torch.autocast("cuda", torch.bfloat16):
                out = checkpoint(
                    lambda t: torch.nn.functional.linear(t, weight).pow(2).sum(), x, use_reentrant=use_reentrant
                )
            out.backward()
        assert weight.grad.dtype == torch.float32


def test_an_embedding_with_sparse_gradients_trains() -> None:
    with dry_run() as rec:
        table = torch.nn.Embedding(100, 8, sparse=True).cuda()
        optimizer = torch.optim.SparseAdam(table.parameters())
        for _ in range(2):
            optimizer.zero_grad()
            table(torch.tensor([1, 2], device="cuda")).sum().backward()
            optimizer.step()
        assert table.weight.grad.is_sparse
    states = requested(rec.trace, Category.OPTIMIZER_STATE)
    assert states == {"exp_avg of weight": 3200, "exp_avg_sq of weight": 3200}
