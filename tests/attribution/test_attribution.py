"""Categories: identity before rules, rules in order, and unknown kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from memscope.attribution.attribution import attribute
from memscope.lifetimes.device import DeviceLifetimes
from memscope.trace.builder import TraceBuilder
from memscope.trace.categories import Category, CategorySource
from memscope.trace.container import read_container, write_container
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import Action, BlockState
from memscope.trace.trace import Trace
from tests.attribution.scripted import SITE, USER, Script, categories, trained

MiB = 1 << 20
STACKS: dict[str, list[tuple[str, str, int]]] = {
    "cublas": [("getCUDABlasLtWorkspaceSize", "CUDABlas.cpp", 1), USER],
    "all_gather": [("all_gather_into_tensor", f"{SITE}/torch/distributed/distributed_c10d.py", 1), USER],
    "cache": [
        ("update", f"{SITE}/transformers/cache_utils.py", 5),
        ("_call_impl", f"{SITE}/torch/nn/modules/module.py", 2),
        USER,
    ],
    "state": [("_init_group", f"{SITE}/torch/optim/adamw.py", 5), ("step", f"{SITE}/torch/optim/adamw.py", 9), USER],
    "backward": [
        ("_engine_run_backward", f"{SITE}/torch/autograd/graph.py", 1),
        ("backward", f"{SITE}/torch/_tensor.py", 2),
        USER,
    ],
    "to": [
        ("convert", f"{SITE}/torch/nn/modules/module.py", 1),
        ("_apply", f"{SITE}/torch/nn/modules/module.py", 2),
        USER,
    ],
    "batch": [("send_to_device", f"{SITE}/accelerate/utils/operations.py", 2), USER],
    "forward": [("forward", "/home/me/model.py", 3), ("_call_impl", f"{SITE}/torch/nn/modules/module.py", 2), USER],
    "windows": [("_call_impl", "C:\\py\\Lib\\site-packages\\torch\\nn\\modules\\module.py", 2), USER],
    "own": [USER],
}
EXPECTED = {
    "cublas": Category.WORKSPACE,
    "all_gather": Category.COMMUNICATION,
    "cache": Category.KV_CACHE,
    "state": Category.OPTIMIZER_STATE,
    "backward": Category.GRADIENTS,
    "to": Category.WEIGHTS,
    "batch": Category.INPUTS,
    "forward": Category.ACTIVATIONS,
    "windows": Category.ACTIVATIONS,
    "own": Category.UNKNOWN,
}


def build(script: list[tuple[str, str]], owners: dict[int, tuple[Category, str, bool]] | None = None) -> Trace:
    """A trace of ("alloc", stack) and ("free", index of the alloc) steps, 512 bytes each, in one 2 MiB segment."""
    builder = TraceBuilder()
    base = 1 << 40
    builder.add_event(Action.SEGMENT_ALLOC, address=base, size_bytes=2 * MiB)
    addresses: list[int] = []
    live: list[int] = []
    for what, argument in script:
        if what == "alloc":
            stack = builder.stacks.stack([builder.stacks.frame(*frame) for frame in STACKS[argument]])
            addresses.append(base + 512 * len(addresses))
            live.append(addresses[-1])
            event = builder.add_event(Action.ALLOC, address=addresses[-1], size_bytes=500, stack_id=stack)
            if owners and len(addresses) - 1 in owners:
                category, label, tagged = owners[len(addresses) - 1]
                builder.set_owner(event, category, label, tagged=tagged)
        else:
            address = addresses[int(argument)]
            live.remove(address)
            builder.add_event(Action.FREE_REQUESTED, address=address, size_bytes=500)
            builder.add_event(Action.FREE_COMPLETED, address=address, size_bytes=500)
    return builder.build(TraceMetadata(source="synthetic", block_layout_recorded=False))


@pytest.mark.parametrize("stack", list(STACKS))
def test_a_stack_of_each_kind_gets_its_category(stack: str) -> None:
    trace = build([("alloc", stack)])
    attribution = attribute(DeviceLifetimes(trace, 0))
    assert Category(attribution.category[0]) is EXPECTED[stack]
    expected_source = CategorySource.NONE if stack == "own" else CategorySource.RULE
    assert attribution.source[0] == expected_source


def test_what_dies_within_its_run_is_temporary() -> None:
    script = [("alloc", "forward"), ("alloc", "forward"), ("free", "0"), ("alloc", "backward"), ("free", "1")]
    attribution = attribute(DeviceLifetimes(build(script), 0))
    assert [Category(c) for c in attribution.category] == [
        Category.TEMPORARIES,
        Category.ACTIVATIONS,
        Category.GRADIENTS,
    ]
    assert attribution.source.tolist() == [CategorySource.LIFETIME, CategorySource.RULE, CategorySource.RULE]


def test_identity_overrides_rules_and_carries_the_owner() -> None:
    trace = build([("alloc", "forward"), ("alloc", "own")], {0: (Category.WEIGHTS, "model.w", False)})
    attribution = attribute(DeviceLifetimes(trace, 0))
    assert attribution.category.tolist() == [Category.WEIGHTS, Category.UNKNOWN]
    assert attribution.source.tolist() == [CategorySource.IDENTITY, CategorySource.NONE]
    assert trace.string(int(attribution.owner_id[0])) == "model.w"
    assert attribution.rule_id.tolist() == [-1, -1]


def test_a_tag_counts_as_the_users_word() -> None:
    trace = build([("alloc", "forward")], {0: (Category.KV_CACHE, "my cache", True)})
    attribution = attribute(DeviceLifetimes(trace, 0))
    assert attribution.category[0] == Category.KV_CACHE
    assert attribution.source[0] == CategorySource.USER


def test_an_allocation_from_before_the_events_is_owned_by_its_address(tmp_path: Path) -> None:
    builder = TraceBuilder()
    segment = builder.add_segment(address=1 << 30, size_bytes=4 * MiB, is_large=True)
    for i, requested in enumerate((MiB, 3 * MiB)):
        size, address = requested, (1 << 30) + i * MiB
        builder.add_block(
            segment, address=address, size_bytes=size, requested_bytes=requested, state=BlockState.ACTIVE_ALLOCATED
        )
    builder.add_event(Action.FREE_REQUESTED, address=1 << 30, size_bytes=MiB)
    builder.add_event(Action.FREE_COMPLETED, address=1 << 30, size_bytes=MiB)
    builder.add_event(Action.ALLOC, address=1 << 30, size_bytes=MiB)
    builder.set_owner_at(0, 1 << 30, Category.GRADIENTS, "w.grad")
    builder.set_owner_at(0, (1 << 30) + MiB, Category.WEIGHTS, "w")
    builder.set_owner_at(1, (1 << 30) + MiB, Category.KV_CACHE, "on another device")
    builder.set_owner(2, Category.ACTIVATIONS, "x")
    trace = builder.build(TraceMetadata(source="synthetic", alloc_conf=""))
    for kept in (trace, read_container(write_container(trace, tmp_path / "a.memscope"))):
        lifetimes = DeviceLifetimes(kept, 0)
        attribution = attribute(lifetimes)
        found = {
            (int(lifetimes.allocations.alloc_event[row]), int(lifetimes.allocations.address[row])): (
                Category(int(attribution.category[row])),
                kept.string(int(attribution.owner_id[row])),
            )
            for row in range(len(lifetimes.allocations))
        }
        assert found == {
            (-1, 1 << 30): (Category.GRADIENTS, "w.grad"),
            (-1, (1 << 30) + MiB): (Category.WEIGHTS, "w"),
            (2, 1 << 30): (Category.ACTIVATIONS, "x"),
        }


@pytest.mark.parametrize("backward", ["backward", None], ids=["stacks", "autograd-thread"])
def test_a_training_program_is_classified_without_identity(backward: str | None) -> None:
    found = categories(trained(backward=backward))
    expected = {
        "weight": "weights",
        "batch": "inputs",
        "activation": "activations",
        "scratch": "temporaries",
        "loss": "activations",
        "gradient": "gradients",
        "inner": "temporaries",
        "update": "temporaries",
        "state": "optimizer_state",
    }
    assert all(found[name] == expected[name.rstrip("0123456789")] for name in found)


def test_a_program_outside_of_every_phase_keeps_its_memory_unknown() -> None:
    script = Script()
    script.alloc("index", "user")
    script.alloc("activation", "forward")
    assert categories(script) == {"index": "unknown", "activation": "activations"}


def test_the_rule_that_decided_is_named() -> None:
    script = trained()
    attribution = attribute(script.lifetimes())
    rule = attribution.rule_of(script.rows["inner0"])
    assert rule is not None
    assert rule.name == "within backward"
    assert attribution.source[script.rows["inner0"]] == CategorySource.LIFETIME


def replacing(n_steps: int = 3) -> Script:
    """Steps whose optimizer makes two states and new weights each time, as ``p.data = p.data - update`` does."""
    script = Script()
    script.alloc("weight", "constructor", 4096)
    for k in range(n_steps):
        script.alloc(f"batch{k}", "batch")
        script.alloc(f"activation{k}", "forward", 1024)
        script.alloc(f"gradient{k}", "backward", 4096)
        script.free(f"activation{k}", "backward")
        for name in ("m", "v"):
            script.alloc(f"{name}{k}", "step", 4096)
            if k:
                script.free(f"{name}{k - 1}", "step")
        script.alloc(f"update{k}", "step", 4096)
        script.alloc(f"weight{k}", "step", 4096)
        script.free(f"weight{k - 1}" if k else "weight", "step")
        script.free(f"update{k}", "step")
        script.free(f"gradient{k}", "zero")
        script.free(f"batch{k}", "user")
    return script


def test_what_a_step_puts_in_the_place_of_weights_is_weights() -> None:
    found = categories(replacing())
    assert {found[f"weight{k}"] for k in range(3)} == {"weights"}
    assert {found[f"{name}{k}"] for name in "mv" for k in range(3)} == {"optimizer_state"}
    assert found["update0"] == "temporaries"


def test_weights_dropped_with_their_model_are_replaced_by_nothing() -> None:
    script = trained(2)
    for _ in range(6):
        script.alloc("other", "constructor")
        script.free("other", "user")
    script.alloc("last", "step")
    for name in ("last", "state", "weight"):
        script.free(name, None)
    assert categories(script)["state"] == "optimizer_state"


def _on_hopper(*forward: int) -> Script:
    """A forward pass that leaves blocks of some sizes, and a backward pass without stacks that leaves two of 32 MiB."""
    script = Script()
    script.alloc("weight", "constructor")
    for k, size in enumerate(forward):
        script.alloc(f"kept{k}", "forward", size)
    script.alloc("activation", "block")
    script.alloc("loss", "loss")
    script.alloc("inner", None, 32 * MiB - 512)
    script.alloc("first", None, 32 * MiB)
    script.alloc("second", None, 32 * MiB)
    script.free("activation", None)
    script.free("inner", None)
    script.alloc("state", "step")
    script.free("loss", "user")
    return script


@pytest.mark.parametrize(
    ("forward", "first"),
    [
        ((32 * MiB,), "workspace"),
        ((), "gradients"),
        ((8_519_680,), "gradients"),
        ((32 * MiB, 8_519_680), "gradients"),
    ],
    ids=["its own thread has one", "no workspace", "another GPU", "of cuBLASLt on another GPU"],
)
def test_the_engine_has_a_workspace_as_the_program_has_one(forward: tuple[int, ...], first: str) -> None:
    found = categories(_on_hopper(*forward))
    assert (found["first"], found["second"], found["inner"]) == (first, "gradients", "temporaries")


def test_a_workspace_that_identity_tells_needs_no_twin() -> None:
    script = _on_hopper(32 * MiB)
    script.builder.set_owner(script.rows["first"], Category.GRADIENTS, "weight.grad")
    assert categories(script)["first"] == "gradients"
