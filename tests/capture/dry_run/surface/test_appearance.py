"""How a dry run's tensors look to a program and its libraries."""

from __future__ import annotations

import copy

import pytest

from tests.capture.programs import dry_run

torch = pytest.importorskip("torch")


def test_a_device_tensor_is_no_fake_tensor_to_a_library() -> None:
    import torch._subclasses.fake_tensor as fakes

    real = fakes.FakeTensor
    with dry_run():
        x = torch.ones(3, device="cuda")
        from torch._subclasses import FakeTensor

        assert not isinstance(x, FakeTensor)
        assert not isinstance(x, torch._subclasses.FakeTensor)
        assert not isinstance(x, fakes.FakeTensor)
        assert type(x) is real
    assert fakes.FakeTensor is torch._subclasses.FakeTensor is real


def test_transformers_is_not_told_that_it_is_traced() -> None:
    import_utils = pytest.importorskip("transformers.utils.import_utils")
    with dry_run():
        x = torch.ones(3, device="cuda")
        assert not import_utils.is_tracing(x)


def test_tensors_are_printed_with_the_values_that_are_known() -> None:
    with dry_run():
        assert repr(torch.arange(3, device="cuda")) == "tensor([0, 1, 2], device='cuda:0')"
        unknown = torch.randn(2, 3, device="cuda")
        assert repr(unknown) == "tensor(..., device='cuda:0', size=(2, 3), dtype=torch.float32)"
        weight = torch.nn.Linear(3, 2).cuda().weight
        assert repr(weight).startswith("Parameter containing:\ntensor(..., device='cuda:0', size=(2, 3)")
        assert repr(weight.sum()).endswith("grad_fn=<SumBackward0>)")


@pytest.mark.filterwarnings("ignore:torch.set_default_tensor_type")
def test_types_of_the_device_are_constructors_and_classes() -> None:
    with dry_run():
        x = torch.cuda.FloatTensor(4, 2)
        assert (x.shape, x.is_cuda, x.dtype) == ((4, 2), True, torch.float32)
        assert torch.cuda.LongTensor([1, 2]).tolist() == [1, 2]
        assert isinstance(x, torch.cuda.FloatTensor)
        assert not isinstance(x, torch.cuda.HalfTensor)
        assert not isinstance(torch.zeros(2), torch.cuda.FloatTensor)
        assert x.type(torch.cuda.HalfTensor).dtype == torch.float16
        assert torch.zeros(2).type("torch.cuda.FloatTensor").is_cuda
        assert x.new(3).shape == (3,)
        torch.set_default_tensor_type(torch.cuda.FloatTensor)
        assert torch.zeros(2).is_cuda
        torch.set_default_tensor_type(torch.FloatTensor)
        assert not torch.zeros(2).is_cuda


def test_a_device_may_be_a_number() -> None:
    plain = torch.device
    with dry_run():
        assert torch.device(0) == torch.device("cuda:0")
        assert isinstance(torch.device("cpu"), torch.device)
        assert torch.zeros(2, device=0).is_cuda
        assert torch.tensor([1.0], device=0).is_cuda
    assert torch.device is plain


def test_a_shallow_copy_has_the_same_memory() -> None:
    with dry_run():
        x = torch.randn(1 << 20, device="cuda")
        before = torch.cuda.memory_allocated()
        other = copy.copy(x)
        assert (other.is_cuda, other.data_ptr()) == (True, x.data_ptr())
        assert torch.cuda.memory_allocated() == before


def test_a_deep_copy_has_memory_of_its_own_until_it_is_dropped() -> None:
    with dry_run():
        model = torch.nn.BatchNorm1d(1 << 18).cuda()
        model(torch.randn(2, 1 << 18, device="cuda")).sum().backward()
        before = torch.cuda.memory_allocated()
        other = copy.deepcopy(model)
        assert torch.cuda.memory_allocated() == before + 4 * (1 << 20) + 512  # weights and buffers, and no gradients
        assert [type(p) is type(q) for p, q in zip(model.parameters(), other.parameters(), strict=True)] == [True] * 2
        assert all(p.grad is None and p.requires_grad for p in other.parameters())
        del other
        assert torch.cuda.memory_allocated() == before


def test_deep_copies_of_views_share_a_copy_of_their_memory() -> None:
    with dry_run():
        whole = torch.zeros(1 << 20, dtype=torch.float32, device="cuda")
        whole.note = ["kept"]
        before = torch.cuda.memory_allocated()
        first, last, again = copy.deepcopy([whole, whole.detach()[512:].view(torch.int32), whole])
        assert torch.cuda.memory_allocated() == before + (1 << 22)
        assert (first.shape, last.shape, last.dtype, last.storage_offset()) == (
            (1 << 20,),
            (1048064,),
            torch.int32,
            512,
        )
        assert first.untyped_storage()._cdata == last.untyped_storage()._cdata
        assert again is first
        assert first.note == ["kept"]
        assert first.note is not whole.note
