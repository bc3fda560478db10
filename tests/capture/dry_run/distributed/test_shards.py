"""Tensors that wrap shards, in a dry run: where they say they are, what they allocate, whose that is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from memscope.capture.recorder import Recorder
from memscope.trace.categories import Category
from memscope.trace.schema import Action
from tests.capture.programs import requested, sizes

torch = pytest.importorskip("torch")
dist = torch.distributed

Start = Callable[[int, int], Recorder]
N = 256
LAYER_BYTES = 4 * N * N


def layers(n: int) -> Any:
    return torch.nn.Sequential(*[torch.nn.Linear(N, N, bias=False) for _ in range(n)])


def mesh(*shape: int, names: tuple[str, ...] = ("dp",)) -> Any:
    return torch.distributed.device_mesh.init_device_mesh("cuda", shape, mesh_dim_names=names)


def fully_sharded(model: Any) -> Any:
    from torch.distributed.fsdp import fully_shard

    for layer in model:
        fully_shard(layer)
    return fully_shard(model)


def test_a_shard_is_on_the_device_and_only_it(rank_of: Start) -> None:
    from torch.distributed.tensor import Shard, distribute_tensor

    recorder = rank_of(1, 4)
    shard = distribute_tensor(torch.ones(N, N), mesh(4), [Shard(0)])
    n_events = recorder.snapshot().n_events
    assert (str(shard.device), shard.is_cuda, shard.to("cuda") is shard) == ("cuda:1", True, True)
    assert shard.cuda() is shard
    assert shard.cpu().device.type == "cpu"
    assert recorder.snapshot().n_events == n_events
    doubled = shard + shard
    assert (doubled.shape, doubled.to_local().shape) == ((N, N), (N // 4, N))
    assert sizes(recorder.snapshot(), Action.ALLOC)[-1] == LAYER_BYTES // 4


def test_fully_shard_has_shards_and_named_buffers(rank_of: Start) -> None:
    recorder = rank_of(3, 8)
    dist.init_process_group("nccl")
    model = fully_sharded(layers(3).cuda())
    optimizer = torch.optim.AdamW(model.parameters())
    for _ in range(2):
        model(torch.ones(4, N, device="cuda")).sum().backward()
        optimizer.step()
    trace = recorder.snapshot()
    states = requested(trace, Category.OPTIMIZER_STATE)
    assert states["exp_avg of 0.weight"] == LAYER_BYTES // 8
    assert sum(requested(trace, Category.GRADIENTS).values()) >= 3 * LAYER_BYTES // 8
    buffers = requested(trace, Category.COMMUNICATION)
    for what in ("all-gather buffer", "unsharded parameters", "reduce-scatter buffer"):
        assert {f"{what} of {layer}" for layer in "012"} <= set(buffers)
    assert all(size % LAYER_BYTES == 0 for label, size in buffers.items() if " of " in label)


def test_a_model_on_no_device_is_made_of_its_shards_alone(rank_of: Start) -> None:
    recorder = rank_of(0, 4)
    dist.init_process_group("nccl")
    with torch.device("meta"):
        model = layers(2)
    fully_sharded(model).to_empty(device="cuda")
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    trace = recorder.snapshot()
    assert max(sizes(trace, Action.ALLOC)) == LAYER_BYTES // 4
    model(torch.ones(4, N, device="cuda")).sum().backward()
    assert all(str(parameter.grad.device) == "cuda:0" for parameter in model.parameters())


def test_tensor_parallel_layers_hold_their_part(rank_of: Start) -> None:
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    recorder = rank_of(2, 4)
    model = layers(2).cuda()
    parallelize_module(model, mesh(2, 2, names=("dp", "tp"))["tp"], {"0": ColwiseParallel(), "1": RowwiseParallel()})
    model(torch.ones(4, N, device="cuda")).sum().backward()
    assert [parameter.grad.to_local().numel() for parameter in model.parameters()] == [N * N // 2] * 2
    assert sum(requested(recorder.snapshot(), Category.GRADIENTS).values()) == LAYER_BYTES


def test_the_older_fsdp_gathers_its_flat_parameters(rank_of: Start) -> None:
    from torch.distributed.fsdp import FullyShardedDataParallel
    from torch.distributed.fsdp.wrap import ModuleWrapPolicy

    recorder = rank_of(1, 4)
    dist.init_process_group("nccl")
    policy = ModuleWrapPolicy({torch.nn.Linear})
    model = FullyShardedDataParallel(layers(2), auto_wrap_policy=policy, device_id=torch.cuda.current_device())
    model(torch.ones(4, N, device="cuda")).sum().backward()
    trace = recorder.snapshot()
    assert sum(requested(trace, Category.GRADIENTS).values()) == 2 * LAYER_BYTES // 4
    assert "all-gather buffer of 0" in " ".join(requested(trace, Category.COMMUNICATION)).replace(
        "_fsdp_wrapped_module.", ""
    )


def test_a_stage_of_a_pipeline_receives_from_nowhere(rank_of: Start) -> None:
    from torch.distributed.pipelining import PipelineStage, ScheduleGPipe

    recorder = rank_of(1, 4)
    dist.init_process_group("nccl")
    example = torch.empty(8, N, device="meta", requires_grad=True)
    device = torch.device("cuda", 1)
    stage = PipelineStage(layers(1).to(device), 1, 4, device, input_args=(example,), output_args=(example,))
    ScheduleGPipe(stage, 4, loss_fn=lambda output, target: (output - target).square().mean()).step()
    buffers = requested(recorder.snapshot(), Category.COMMUNICATION)
    assert sum(size for label, size in buffers.items() if label.startswith("receive buffer")) >= 4 * 4 * 8 * N
