from __future__ import annotations

import gc
import threading
from pathlib import Path

import numpy as np
import pytest

from memscope.errors import CaptureError, UsageError
from memscope.trace.categories import Category
from memscope.trace.schema import Action, MarkKind
from tests.capture.programs import dry_run, live_bytes, owners, requested, sizes, small_model, train

torch = pytest.importorskip("torch")


def test_the_sizes_of_storages_are_the_requests() -> None:
    with dry_run() as rec:
        kept = [torch.empty(1000, device="cuda"), torch.zeros(3, 5, dtype=torch.bfloat16, device="cuda:0")]
        assert torch.cuda.memory_allocated() == 4096 + 512
    rec.trace.check()
    assert sizes(rec.trace, Action.ALLOC) == [4000, 30]
    assert len(kept) == 2


def test_a_released_storage_is_freed_at_once() -> None:
    with dry_run() as rec:
        first = torch.empty(1000, device="cuda")
        del first
        second = torch.empty(1000, device="cuda")
    trace = rec.trace
    actions = [Action(int(action)) for action in trace.action]
    assert actions == [
        Action.SEGMENT_ALLOC,
        Action.ALLOC,
        Action.FREE_REQUESTED,
        Action.FREE_COMPLETED,
        Action.ALLOC,
    ]
    assert trace.address[1] == trace.address[4]
    assert second.shape == (1000,)


def test_views_and_in_place_operations_allocate_nothing() -> None:
    with dry_run() as rec:
        base = torch.zeros(4, 4, device="cuda")
        view = base[1:].t().reshape(4, 3)
        base.add_(1).mul_(2).normal_()
        base.uniform_()
        alias = base.detach()
    assert sizes(rec.trace, Action.ALLOC) == [64]
    assert (view.shape, alias.shape) == ((4, 3), (4, 4))


def test_a_view_keeps_its_storage_alive() -> None:
    with dry_run() as rec:
        view = torch.zeros(1 << 20, device="cuda")[:1]
        assert torch.cuda.memory_allocated() == 4 << 20
        del view
        assert torch.cuda.memory_allocated() == 0
    assert live_bytes(rec.trace)[-1] == 0


def test_host_tensors_make_no_events_and_have_their_values() -> None:
    with dry_run() as rec:
        host = torch.arange(6).reshape(2, 3)
        assert host.sum().item() == 15
        assert (host.device.type, host.is_cuda) == ("cpu", False)
        large = torch.randn(2048, 2048)
        assert float(large.mean()) == 1.0  # too large to be real: a fixed answer, which is counted
    assert rec.trace.n_events == 0
    assert rec.trace.metadata.extra["n_fixed_answers"] == 1


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


def test_mixing_host_and_device_fails_as_on_a_gpu() -> None:
    with dry_run(), pytest.raises(RuntimeError, match="device"):
        torch.ones(3, device="cuda") @ torch.ones(3)


def test_a_storage_that_is_resized_moves() -> None:
    with dry_run() as rec:
        tensor = torch.empty(1024, device="cuda")
        tensor.untyped_storage().resize_(0)
        assert torch.cuda.memory_allocated() == 0
        tensor.untyped_storage().resize_(4096)
        assert torch.cuda.memory_allocated() == 4096
        grown = torch.empty(0, device="cuda").resize_(8)
    assert sizes(rec.trace, Action.ALLOC) == [4096, 4096, 32]
    assert grown.shape == (8,)


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


def test_activations_inputs_workspaces_and_temporaries_are_told_apart() -> None:
    with dry_run() as rec:
        train(small_model(), steps=1)
    assert requested(rec.trace, Category.INPUTS) == {"copied to the device": 32 * 64 * 4 + 32 * 8}
    activations = requested(rec.trace, Category.ACTIVATIONS)
    assert activations["1"] == 32 * 256 * 4
    assert activations["2"] == 32 * 256  # the dropout's mask, one byte for each element
    assert requested(rec.trace, Category.WORKSPACE) == {
        "cuBLAS workspace (modelled)": 8_519_680,
        "cuBLASLt workspace (modelled)": 1 << 20,
    }
    assert set(requested(rec.trace, Category.TEMPORARIES)) >= {"backward", "optimizer"}


def test_adamw_takes_the_foreach_path_as_on_cuda() -> None:
    with dry_run() as rec:
        model = small_model()
        train(model, steps=1)
    trace = rec.trace
    names = {frame.name for stack in range(len(trace.stacks)) for frame in trace.stack(stack)}
    assert "_multi_tensor_adamw" in names or "_multi_tensor_adam" in names


def test_phases_and_optimizer_steps_are_marked() -> None:
    with dry_run() as rec:
        train(small_model(), steps=2)
    labels = [rec.trace.strings[label] for label in rec.trace.marks.label_id]
    once = ["forward", "forward", "backward", "backward", "optimizer", "optimizer"]
    assert labels == [*once, "0", *once, "1"]
    assert np.all(np.diff(rec.trace.marks.event) >= 0)


def test_steps_that_the_program_names_replace_those_of_its_optimizer() -> None:
    with dry_run() as rec:
        train(small_model(), steps=1)
        rec.step("warm-up")
    steps = rec.trace.marks.label_id[rec.trace.marks.kind == MarkKind.STEP]
    assert [rec.trace.strings[label] for label in steps] == ["warm-up"]


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


def test_gradients_accumulate_in_place() -> None:
    with dry_run() as rec:
        weight = torch.zeros(1 << 20, device="cuda", requires_grad=True)
        for _ in range(2):
            (weight * 2 + weight * 3).sum().backward()
        assert torch.cuda.max_memory_allocated() <= 6 * (4 << 20) + 4096
        assert torch.cuda.memory_allocated() == 2 * (4 << 20)
    assert rec.trace.n_events > 0


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
        workspaces = 8_519_680 + (1 << 20)
        assert torch.cuda.memory_allocated() == 8 * (1024 * 1024 + 1024) * 4 + workspaces


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


def test_attention_makes_no_attention_matrix() -> None:
    attend = torch.nn.functional.scaled_dot_product_attention
    with dry_run() as rec:
        query = torch.zeros(2, 8, 1024, 64, dtype=torch.bfloat16, device="cuda")
        attend(query, query, query, is_causal=True)
    assert max(sizes(rec.trace, Action.ALLOC)) == 2 * 8 * 1024 * 64 * 2


def test_autocast_and_gradient_scaling_run() -> None:
    with dry_run() as rec:
        model = small_model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        scaler = torch.amp.GradScaler("cuda")
        with torch.autocast("cuda", dtype=torch.float16):
            out = model(torch.randn(8, 64, device="cuda"))
        assert out.dtype == torch.float16
        scaler.scale(out.float().sum()).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
    assert requested(rec.trace, Category.OPTIMIZER_STATE)["momentum_buffer of 0.weight"] == 64 * 256 * 4


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


def test_known_values_decide_and_unknown_ones_are_answered_and_counted() -> None:
    with dry_run() as rec:
        mask = torch.ones(4, 8, dtype=torch.long, device="cuda")
        assert bool(mask.all())
        assert (mask.sum() == 32).item()
        tokens = torch.randn(4, 8, device="cuda").argmax(-1)
        assert not bool((tokens == 3).any())
        assert (tokens.shape, tokens[0].item()) == ((4,), 1)
    assert rec.trace.metadata.extra["n_fixed_answers"] == 2
    assert any(note.startswith("2 reads of values") for note in rec.trace.metadata.notes)


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


def test_settings_that_cannot_be_simulated_are_refused() -> None:
    with pytest.raises(CaptureError, match="cudaMallocAsync"):
        dry_run(conf="backend:cudaMallocAsync").start()
    with pytest.raises(UsageError, match="not one of PyTorch's"):
        dry_run(conf="no_such_option:1").start()


def test_allocator_settings_shape_the_segments() -> None:
    def segments(conf: str) -> int:
        with dry_run(conf=conf) as rec:
            torch.zeros(3 << 20, dtype=torch.uint8, device="cuda")
        return int((rec.trace.action == Action.SEGMENT_MAP).sum())

    assert (segments(""), segments("expandable_segments:True")) == (0, 1)


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


def test_convolutions_norms_masks_and_inference_mode_run() -> None:
    nn = torch.nn
    with dry_run() as rec:
        network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2)).cuda()
        network(torch.randn(4, 3, 32, 32, device="cuda")).sum().backward()
        numbers = torch.randint(0, 9, (3, 5), device="cuda")
        assert numbers[numbers > 3].shape == (15,)  # at most
        with torch.inference_mode():
            out = torch.nn.RMSNorm(64).cuda()(small_model().eval()[0](torch.ones(2, 64, device="cuda"))[:, :64])
        assert out.shape == (2, 64)
    assert requested(rec.trace, Category.GRADIENTS)["0.weight.grad"] == 8 * 3 * 9 * 4


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


def test_one_owner_at_most_and_none_for_what_nothing_owns() -> None:
    with dry_run() as rec:
        stray = torch.zeros(7, device="cuda")
    assert owners(rec.trace) == {}
    assert stray.numel() == 7
