"""A dry run as a whole: torch is taken over, and given back as it was."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from memscope.analysis import Analysis
from memscope.errors import CaptureError, UsageError
from memscope.replay.config import CachingAllocatorConfig
from memscope.replay.verify.verify import verify
from tests.capture.programs import dry_run

torch = pytest.importorskip("torch")


def test_torch_is_as_before_afterwards_even_if_the_program_fails() -> None:
    watched = [
        (torch.cuda, "is_available"),
        (torch.cuda, "memory_allocated"),
        (torch.Tensor, "to"),
        (torch.Tensor, "is_cuda"),
        (torch.nn.Module, "__call__"),
        (torch.nn.Module, "_apply"),
        (torch.autograd, "backward"),
        (torch.nn.functional, "scaled_dot_product_attention"),
        (torch, "Generator"),
        (torch, "compile"),
        (threading.Thread, "_bootstrap_inner"),
    ]
    before = [getattr(owner, name) for owner, name in watched]

    def fail() -> None:
        assert torch.zeros(3, device="cuda").is_cuda
        raise ZeroDivisionError

    rec = dry_run()
    with pytest.raises(ZeroDivisionError), rec:
        fail()
    assert [getattr(owner, name) for owner, name in watched] == before
    assert "to" not in vars(torch.Tensor)
    assert torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE) is None
    assert torch._C._len_torch_function_stack() == torch._C._len_torch_dispatch_stack() == 0
    assert not torch.nn.modules.module._global_parameter_registration_hooks
    assert torch.zeros(2).tolist() == [0.0, 0.0]
    assert rec.trace.n_events == 4
    layer = torch.nn.Linear(2, 2)
    layer(torch.ones(1, 2)).sum().backward()
    assert layer.weight.grad is not None


def test_a_program_with_fake_tensors_of_its_own_is_refused() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with dry_run(), pytest.raises(CaptureError, match=r"test_recording.py:\d+: .* FakeTensorMode"), FakeTensorMode():
        torch.ones(3)
    with FakeTensorMode(), pytest.raises(CaptureError, match="cannot start inside"):
        dry_run().start()
    assert torch.ones(1).item() == 1


def test_other_threads_may_work_on_the_host_only() -> None:
    found: list[object] = []

    def work(device: str) -> None:
        try:
            found.append(torch.ones(3, device=device).sum().item())
        except CaptureError as error:
            found.append(str(error))

    with dry_run():
        for device in ("cpu", "cuda:0"):
            thread = threading.Thread(target=work, args=(device,))
            thread.start()
            thread.join()
    assert found[0] == 3.0
    assert "follows the thread that started it" in str(found[1])


@pytest.mark.parametrize(
    "conf", ["", "expandable_segments:True", "max_split_size_mb:24", "roundup_power2_divisions:[64:1,128:4,>:2]"]
)
def test_a_recording_says_under_which_settings_it_was_made(conf: str) -> None:
    with dry_run(conf=conf) as rec:
        kept = []
        for mebibytes in (5.5, 2.0, 5.5, 30.0, 5.5, 5.5, 23.0, 5.5, 0.4):
            kept.append(torch.empty(int(mebibytes * (1 << 20)), dtype=torch.uint8, device="cuda"))
            if len(kept) % 3 == 0:
                del kept[0]
    analysis = Analysis(rec.trace)
    analysis.require_consistent()
    assert verify(rec.trace).exact
    config = CachingAllocatorConfig.parse(conf)
    assert CachingAllocatorConfig.from_trace(rec.trace) == config
    assert rec.trace.metadata.allocator_settings["expandable_segments"] is config.is_expandable


def test_settings_that_cannot_be_simulated_are_refused() -> None:
    with pytest.raises(CaptureError, match="cudaMallocAsync"):
        dry_run(conf="backend:cudaMallocAsync").start()
    with pytest.raises(UsageError, match="not one of PyTorch's"):
        dry_run(conf="no_such_option:1").start()


def test_stacks_hold_the_program_and_the_library_but_not_the_tracer() -> None:
    with dry_run() as rec:
        model = torch.nn.Linear(4, 4).to("cuda")
        kept = model(torch.ones(2, 4, device="cuda"))
    trace = rec.trace
    event = int(np.flatnonzero(trace.size_bytes == 32)[-1])
    files = [frame.filename for frame in trace.stack(int(trace.stack_id[event]))]
    assert files[0].endswith("torch/nn/modules/linear.py")
    assert any(file.endswith("test_recording.py") for file in files)
    assert not [file for file in files if "memscope/capture/" in file and "tests" not in file]
    assert not [file for file in files if "_subclasses" in file or "_dynamo" in file]
    assert kept.shape == (2, 4)


def test_a_recording_without_stacks_has_none() -> None:
    with dry_run(stacks=None) as rec:
        torch.zeros(3, device="cuda")
    assert rec.trace.stack_id.tolist() == [-1] * rec.trace.n_events
