"""The simulated device of a dry run: the allocator simulator behind it, and what ``torch.cuda`` answers about it."""

from __future__ import annotations

import gc

import pytest

from memscope.capture.dry_run.kernels.workspaces import Workspaces
from memscope.gpus import find_gpu
from memscope.trace.schema import Action
from tests.capture.programs import dry_run, sizes

torch = pytest.importorskip("torch")


def test_running_out_of_memory_is_raised_and_recorded() -> None:
    with dry_run(gpu="1GiB") as rec:
        kept = torch.empty(256 << 20, dtype=torch.uint8, device="cuda")
        with pytest.raises(torch.OutOfMemoryError, match=r"Tried to allocate 512\.0 MiB"):
            torch.empty(512 << 20, dtype=torch.uint8, device="cuda")
        again = torch.empty(1 << 20, dtype=torch.uint8, device="cuda")
    trace = rec.trace
    assert sizes(trace, Action.OOM) == [512 << 20]
    assert trace.samples.device_free_bytes.tolist() == [(1 << 30) - (512 << 20) - (256 << 20)]
    assert sizes(trace, Action.ALLOC) == [256 << 20, 1 << 20]
    assert len(kept) + len(again) == (257 << 20)


def test_what_a_failed_forward_pass_held_is_released() -> None:
    with dry_run(gpu="1GiB"):
        model = torch.nn.Sequential(*[torch.nn.Linear(1024, 1024) for _ in range(8)]).cuda()
        with pytest.raises(torch.OutOfMemoryError):
            model(torch.randn(1 << 14, 1024, device="cuda"))
        gc.collect()
        kept = Workspaces(find_gpu("1GiB"), torch.__version__).needed("addmm", (torch.zeros(1),), 0).kept
        assert torch.cuda.memory_allocated() == 8 * (1024 * 1024 + 1024) * 4 + sum(n_bytes for n_bytes, _ in kept)


def test_allocator_settings_shape_the_segments() -> None:
    def segments(conf: str) -> int:
        with dry_run(conf=conf) as rec:
            torch.zeros(3 << 20, dtype=torch.uint8, device="cuda")
        return int((rec.trace.action == Action.SEGMENT_MAP).sum())

    assert (segments(""), segments("expandable_segments:True")) == (0, 1)


def test_the_simulated_device_answers_questions() -> None:
    with dry_run(gpu="H100-80GB"):
        assert torch.cuda.is_available()
        assert torch.cuda.device_count() == 1
        assert torch.cuda.get_device_name() == "NVIDIA H100 80GB HBM3"
        free_bytes, total_bytes = torch.cuda.mem_get_info()
        assert 0 < free_bytes < total_bytes == torch.cuda.get_device_properties(0).total_memory
        torch.cuda.synchronize()
        with torch.cuda.stream(torch.cuda.Stream()):
            tensor = torch.rand(3, device="cuda", generator=torch.Generator(device="cuda").manual_seed(1))
        torch.cuda.reset_peak_memory_stats()
        del tensor
        assert (torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()) == (0, 512)
        assert torch.cuda.memory_reserved() == 2 << 20
        torch.cuda.empty_cache()
        assert torch.cuda.memory_reserved() == 0
        with pytest.raises(RuntimeError, match="invalid device ordinal"):
            torch.zeros(1, device="cuda:1")


def test_a_second_device_has_an_allocator_of_its_own() -> None:
    linear = torch.nn.Linear
    with dry_run(n_devices=2) as rec:
        first, second = linear(1024, 1024).to("cuda:0"), linear(1024, 1024).to("cuda:1")
        optimizer = torch.optim.AdamW([*first.parameters(), *second.parameters()])
        for _ in range(2):
            hidden = first(torch.randn(64, 1024, device="cuda:0"))
            loss = second(hidden.to("cuda:1")).pow(2).mean()
            assert (hidden.get_device(), loss.device) == (0, torch.device("cuda:1"))
            loss.backward()
            assert first.weight.grad is not None
            assert first.weight.grad.device == torch.device("cuda:0")
            optimizer.step()
            optimizer.zero_grad()
        allocated = [torch.cuda.memory_allocated(index) for index in range(2)]
    assert rec.trace.devices == (0, 1)
    assert abs(allocated[0] - allocated[1]) < 2 << 20
    assert min(allocated) > 8 << 20


def test_blocks_and_streams_choose_the_device() -> None:
    with dry_run(n_devices=2):
        assert torch.cuda.device_count() == 2
        with torch.cuda.device(1):
            assert torch.zeros(4, device="cuda").device == torch.device("cuda:1")
            stream = torch.cuda.Stream()
        assert (torch.cuda.current_device(), stream.device) == (0, torch.device("cuda:1"))
        with torch.cuda.stream(stream):
            assert torch.cuda.current_device() == 1
            assert torch.cuda.current_stream() == stream
        assert torch.cuda.current_device() == 0
        torch.cuda.set_device("cuda:1")
        moved = torch.zeros(4).cuda()
        assert moved.get_device() == 1
        assert torch.cuda.memory_allocated("cuda:1") > torch.cuda.memory_allocated(0) == 0
        with pytest.raises(RuntimeError, match="2 devices, not cuda:2"):
            torch.zeros(4, device="cuda:2")


def test_memory_runs_out_on_the_device_that_it_ran_out_on() -> None:
    with dry_run(gpu="1GiB", n_devices=2) as rec:
        torch.zeros(1 << 28, dtype=torch.uint8, device="cuda:0")
        with pytest.raises(torch.OutOfMemoryError, match="GPU 1 has"):
            torch.zeros(1 << 30, dtype=torch.uint8, device="cuda:1")
    failed = rec.trace.action == Action.OOM
    assert rec.trace.device[failed].tolist() == [1]
