"""torch's own tools under a dry run."""

from __future__ import annotations

import warnings

import pytest

from tests.capture.programs import dry_run, small_model

torch = pytest.importorskip("torch")


def test_profilers_have_the_side_of_the_host() -> None:
    activity = torch.profiler.ProfilerActivity
    with dry_run():
        model, x = small_model(), torch.randn(4, 64, device="cuda")
        with torch.profiler.profile(activities=[activity.CUDA]):
            model(x)
        with torch.profiler.profile(activities=[activity.CPU, activity.CUDA], with_stack=True) as profile:
            model(x)
        assert profile.key_averages()
        with torch.autograd.profiler.emit_nvtx(), torch.cuda.nvtx.range("forward"):
            model(x)


def test_functional_transforms_run() -> None:
    with dry_run():
        x, weight = torch.randn(8, 8, device="cuda"), torch.randn(8, 8, device="cuda")
        gradient = torch.func.grad(lambda w: torch.nn.functional.linear(x, w).sum())(weight)
        assert (gradient.shape, gradient.is_cuda) == ((8, 8), True)
        assert torch.func.jacrev(lambda row: row * row)(x[0]).shape == (8, 8)
        small_model()(torch.randn(4, 64, device="cuda")).sum().backward()  # what it saves is claimed again


def test_a_generator_of_the_device_says_so() -> None:
    with dry_run():
        generator = torch.Generator("cuda").manual_seed(1)
        assert generator.device.type == "cuda"
        assert torch.Generator().device.type == "cpu"
        assert torch.randn(3, generator=generator, device="cuda").is_cuda
        assert torch.get_device_module() is torch.cuda


def test_modules_of_torchscript_run_as_they_are() -> None:
    with dry_run():
        x = torch.randn(4, 8, device="cuda")
        assert torch.jit.script(torch.nn.Linear(8, 2)).cuda()(x).shape == (4, 2)
        assert torch.jit.trace(torch.nn.Linear(8, 2).cuda(), x)(x).shape == (4, 2)


def test_torchscript_of_functions_finds_the_names_of_those_who_ask() -> None:
    with dry_run(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)

        @torch.jit.script
        def inner(x: torch.Tensor) -> torch.Tensor:
            return x + 1

        @torch.jit.script
        def outer(x: torch.Tensor) -> torch.Tensor:
            return inner(x)  # a name of this frame

        assert outer(torch.zeros(2)).tolist() == [1, 1]


def test_transformer_layers_and_data_parallel_run() -> None:
    nn = torch.nn
    with dry_run():
        x = torch.randn(1, 8, 8, device="cuda")
        encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, batch_first=True), 1).cuda().eval()
        with torch.no_grad():
            assert encoder(x, src_key_padding_mask=torch.zeros(1, 8, dtype=torch.bool, device="cuda")).shape == x.shape
        assert nn.DataParallel(nn.Linear(8, 2).cuda())(x[0]).shape == (8, 2)
