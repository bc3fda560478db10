"""Moves between host and device in a dry run."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from memscope.trace.categories import Category
from memscope.trace.schema import Action
from tests.capture.programs import dry_run, requested, sizes

torch = pytest.importorskip("torch")


def test_moves_between_host_and_device() -> None:
    with dry_run() as rec:
        host = torch.arange(5)
        there = host.to("cuda", non_blocking=True)
        assert (there.device, there.is_cuda, there.get_device()) == (torch.device("cuda:0"), True, 0)
        assert there.to("cuda") is there
        assert there.cpu().tolist() == [0, 1, 2, 3, 4]
        doubled = torch.zeros(2, device=there.device).to(torch.float64)
        assert (doubled.dtype, doubled.is_cuda) == (torch.float64, True)
        assert host.pin_memory().cuda().is_cuda
        assert torch.as_tensor([1.0, 2.0], device="cuda").is_cuda
        assert there.new_zeros(3).is_cuda
        assert torch.ones_like(there).is_cuda
    assert sizes(rec.trace, Action.ALLOC) == [40, 8, 16, 40, 8, 24, 40]


def test_a_model_made_on_the_host_keeps_its_parameters_when_it_moves() -> None:
    with dry_run() as rec:
        model = torch.nn.Linear(2048, 2048)  # the weight is fake on the host, the bias real
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        before = [id(parameter) for parameter in model.parameters()]
        model.to("cuda").to(torch.bfloat16)
        assert [id(parameter) for parameter in model.parameters()] == before
        assert optimizer.param_groups[0]["params"][0].is_cuda
        model(torch.ones(1, 2048, dtype=torch.bfloat16, device="cuda")).sum().backward()
        optimizer.step()
        assert torch.cuda.memory_allocated() >= 2 * 2 * 2048 * 2048
    assert requested(rec.trace, Category.GRADIENTS) == {"weight.grad": 2 * 2048 * 2048, "bias.grad": 4096}


def test_a_checkpoint_is_loaded_where_it_is_wanted(tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    torch.save(torch.nn.Linear(4, 2).state_dict(), file)
    with dry_run() as rec:
        on_host = torch.load(file)
        assert on_host["weight"].shape == (2, 4)
        there = torch.load(file, map_location="cuda")
        assert there["weight"].is_cuda
        torch.nn.Linear(4, 2).cuda().load_state_dict(there)
    assert sizes(rec.trace, Action.ALLOC) == [32, 8, 32, 8]


def test_a_model_goes_to_the_host_and_back() -> None:
    with dry_run():
        model, x = torch.nn.Linear(8, 8).cuda(), torch.randn(4, 8, device="cuda")
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        model(x).sum().backward()
        model.cpu()
        assert (model.weight.device.type, model.weight.grad.device.type) == ("cpu", "cpu")
        assert model(torch.ones(4, 8)).shape == (4, 8)
        model.cuda()
        with torch.inference_mode():
            assert model(x).sum().item() == 1.0
        model(x).sum().backward()
        optimizer.step()


def test_threads_of_a_loader_copy_to_the_device() -> None:
    with dry_run() as rec:
        model = torch.nn.Linear(8, 8).cuda()
        before = torch.cuda.memory_allocated()
        with ThreadPoolExecutor(4) as pool:
            copies = [pool.submit(torch.ones(1024).to, "cuda", torch.bfloat16) for _ in range(16)]
            for _ in range(20):
                model(torch.randn(4, 8, device="cuda"))
            loaded = [copy.result() for copy in copies]
        assert all(tensor.is_cuda and tensor.dtype == torch.bfloat16 for tensor in loaded)
        assert torch.cuda.memory_allocated() - before >= 16 * 2048
    assert sizes(rec.trace, Action.ALLOC).count(2048) == 16


def test_a_pass_over_the_host_makes_no_events() -> None:
    with dry_run() as rec:
        x = torch.randn(1024, 2048, requires_grad=True)  # fake, as it is large
        x.prod(-1).sum().backward()
        assert (x.grad.shape, x.grad.device.type) == ((1024, 2048), "cpu")
    assert rec.trace.n_events == 0


def test_a_model_without_memory_changes_its_type_and_gets_memory_in_it() -> None:
    with dry_run() as rec:
        with torch.device("meta"):
            model = torch.nn.Linear(256, 256, bias=False).to(torch.bfloat16)
        assert (model.weight.device.type, model.weight.dtype) == ("meta", torch.bfloat16)
        model.to_empty(device="cuda")
    assert sizes(rec.trace, Action.ALLOC).count(2 * 256 * 256) == 1


def test_what_autograd_keeps_on_the_host_takes_nothing_of_the_device() -> None:
    with dry_run():
        x = torch.randn(512, 512, device="cuda", requires_grad=True)
        with torch.autograd.graph.save_on_cpu():
            y = x * 2
            z = y * y
            del y
        assert torch.cuda.memory_allocated() == 2 * 512 * 512 * 4
        z.sum().backward()
        assert x.grad.is_cuda


def test_what_autograd_saves_in_pinned_memory_is_not_on_the_device() -> None:
    with dry_run():
        weight = torch.empty(512, 512, device="cuda", requires_grad=True)
        x = torch.empty(4096, 512, device="cuda")
        with torch.autograd.graph.save_on_cpu(pin_memory=True):
            loss = (x @ weight).relu().sum()
        del x
        held = torch.cuda.memory_allocated()
        loss.backward()
    # The weight, the loss and cuBLAS's workspace.
    assert held < 4 * 512 * 512 + 10 * 2**20
