"""The user's line of code in a stack, and the module in an owner's name."""

from __future__ import annotations

import numpy as np
import pytest

from memscope.attribution.sites import Sites, module_of_owner, natural_order, own_frames, site_frames
from memscope.trace.builder import TraceBuilder
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import NONE_ID
from tests.attribution.scripted import SITE, Script


def test_the_site_is_the_users_own_innermost_frame() -> None:
    script = Script()
    for stack in ("forward", "step", "generate"):
        script.alloc(stack, stack)
    trace = script.trace()
    sites = [str(trace.frame(int(i))) for i in site_frames(trace)]
    assert sites == ["/home/me/net.py:3 forward", "/home/me/train.py:10 train", "/home/me/train.py:10 train"]
    own = {str(trace.frame(i)) for i in np.flatnonzero(own_frames(trace))}
    assert own == {"/home/me/net.py:3 forward", "/home/me/train.py:10 train"}


def test_a_stack_of_library_frames_only_keeps_its_innermost() -> None:
    builder = TraceBuilder()
    frame = builder.stacks.frame("_apply", f"{SITE}/torch/nn/modules/module.py", 2)
    builder.stacks.stack([frame])
    trace = builder.build(TraceMetadata(source="synthetic"))
    assert np.array_equal(site_frames(trace), [frame])


def test_stacks_are_named_by_their_sites_and_none_by_none() -> None:
    script = Script()
    script.alloc("a", "forward")
    script.alloc("b", None)
    script.alloc("c", "forward")
    trace = script.trace()
    sites = Sites(trace)
    assert sites.of_stacks(trace.stack_id) == ["/home/me/net.py:3 forward", None, "/home/me/net.py:3 forward"]
    assert sites.frames_of(trace.stack_id)[1] == NONE_ID
    assert sites.name_of_frame(NONE_ID) is None


@pytest.mark.parametrize(
    ("owner", "module"),
    [
        ("model.layers.3.self_attn.q_proj.weight", "model.layers.3.self_attn.q_proj"),
        ("exp_avg of model.layers.3.mlp.up_proj.weight", "model.layers.3.mlp.up_proj"),
        ("model.norm.weight.grad", "model.norm"),
        ("model.layers.0", "model.layers.0"),
        ("cuBLAS workspace (modelled)", "cuBLAS workspace (modelled)"),
    ],
)
def test_the_module_of_an_owner(owner: str, module: str) -> None:
    assert module_of_owner(owner) == module


def test_names_are_sorted_as_people_count() -> None:
    names = ["h.10.mlp", "h.2", "H.1", "h", "h.002", "h.x", f"h.{'9' * 5000}", "2h"]
    ordered = ["2h", "h", "H.1", "h.2", "h.002", "h.10.mlp", f"h.{'9' * 5000}", "h.x"]
    assert sorted(names, key=natural_order) == ordered


def test_a_stack_of_compiled_code_alone_is_not_named_by_what_took_it() -> None:
    builder = TraceBuilder()
    names = (
        "torch::unwind::unwind()",
        "torch::CapturedTraceback::gather(bool, bool, bool)",
        "c10::cuda::CUDACachingAllocator::Native::NativeCachingAllocator::allocate(unsigned long)",
        "at::cuda::getNewWorkspace()",
        "at::native::addmm_out_cuda_impl()",
    )
    frames = [builder.stacks.frame(name, "??", 0) for name in names]
    builder.stacks.stack(frames)
    builder.stacks.stack(frames[:2])
    trace = builder.build(TraceMetadata(source="synthetic"))
    assert np.array_equal(site_frames(trace), [frames[3], frames[0]])
