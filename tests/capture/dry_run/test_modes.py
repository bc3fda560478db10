"""What stands between a program's calls of torch and the dry run."""

from __future__ import annotations

import copy
import threading

import pytest

from tests.capture.programs import dry_run

torch = pytest.importorskip("torch")


def test_torch_is_not_kept_from_compiling_the_modes() -> None:
    # A call of torch's that keeps it from that costs more than most of what the modes do.
    with dry_run():
        modes = torch.utils._python_dispatch._get_current_dispatch_mode_stack()
        assert len(modes) == 2
        assert all("eval_frame" not in type(mode).__torch_dispatch__.__code__.co_filename for mode in modes)


def test_views_of_copied_weights_are_views() -> None:
    with dry_run():
        layer = copy.deepcopy(torch.nn.Linear(64, 256, device="cuda"))
        before = torch.cuda.memory_allocated()
        views = layer.weight.t(), layer.weight.view(-1), layer.weight[3:], layer.bias.detach()
        assert torch.cuda.memory_allocated() == before
        assert {view.untyped_storage()._cdata for view in views[:3]} == {layer.weight.untyped_storage()._cdata}


def test_tensors_that_wrap_others_are_taken_apart() -> None:
    from torch.testing._internal.two_tensor import TwoTensor

    with dry_run() as rec:
        both = TwoTensor(torch.ones(1000, device="cuda"), torch.ones(1000, device="cuda"))
        assert (both + both).a.is_cuda
    assert rec.trace.n_events >= 4


def test_a_thread_may_work_on_the_host() -> None:
    found: list[float] = []
    with dry_run():
        thread = threading.Thread(target=lambda: found.append(torch.ones(4).sum().item()))
        thread.start()
        thread.join()
    assert found == [4.0]
