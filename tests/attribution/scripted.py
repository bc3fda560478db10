"""Traces made of a few named stacks, to try rules on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from memscope.analysis import Analysis
from memscope.attribution.attribution import attribute
from memscope.lifetimes.device import DeviceLifetimes
from memscope.trace.builder import TraceBuilder
from memscope.trace.categories import Category
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import NONE_ID, Action, BlockState
from memscope.trace.trace import Trace

FrameText = tuple[str, str, int]
SITE = "/opt/venv/lib/python3.11/site-packages"
USER: FrameText = ("train", "/home/me/train.py", 10)
CALL: FrameText = ("_call_impl", f"{SITE}/torch/nn/modules/module.py", 2)
STACKS: dict[str, list[FrameText]] = {
    "user": [USER],
    "batch": [("train", "/home/me/train.py", 12)],
    "loss": [("cross_entropy", "/home/me/losses.py", 4), USER],
    "forward": [("forward", "/home/me/net.py", 3), CALL, USER],
    "block": [("forward", "/home/me/net.py", 9), CALL, USER],
    "backward": [("_engine_run_backward", f"{SITE}/torch/autograd/graph.py", 1), USER],
    "step": [
        ("_multi_tensor_adamw", f"{SITE}/torch/optim/adamw.py", 3),
        ("profile_hook_step.<locals>.wrapper", f"{SITE}/torch/optim/optimizer.py", 9),
        ("wrapper", f"{SITE}/torch/optim/optimizer.py", 9),
        USER,
    ],
    "zero": [("zero_grad", f"{SITE}/torch/optim/optimizer.py", 30), USER],
    "generate": [CALL, ("_sample", f"{SITE}/transformers/generation/utils.py", 5), USER],
    "constructor": [("__init__", "/home/me/net.py", 5), USER],
}


class Script:
    """Builds a trace from allocations and frees by name; each takes a stack's name, or None for no stack."""

    def __init__(self, stacks: Mapping[str, Sequence[FrameText]] | None = None) -> None:
        self._stacks = {**STACKS, **(stacks or {})}
        self.builder = TraceBuilder()
        self._next = 1 << 40
        self._live: dict[str, tuple[int, int]] = {}
        self.rows: dict[str, int] = {}

    def alloc(self, name: str, stack: str | None, size_bytes: int = 512) -> int:
        """Allocate; the name finds the row again. Returns the event."""
        self._live[name] = self._next, size_bytes
        self.rows[name] = len(self.rows)
        address, self._next = self._next, self._next + (size_bytes + 511) // 512 * 512
        return self.builder.add_event(Action.ALLOC, address=address, size_bytes=size_bytes, stack_id=self._stack(stack))

    def free(self, name: str, stack: str | None = None) -> None:
        """Free what a name was given to."""
        address, size_bytes = self._live.pop(name)
        for action in (Action.FREE_REQUESTED, Action.FREE_COMPLETED):
            self.builder.add_event(action, address=address, size_bytes=size_bytes, stack_id=self._stack(stack))

    def trace(self) -> Trace:
        """What was recorded."""
        return self.builder.build(
            TraceMetadata(source="synthetic", has_segment_events=False, block_layout_recorded=False)
        )

    def lifetimes(self) -> DeviceLifetimes:
        """Its lifetimes on device 0."""
        return DeviceLifetimes(self.trace(), 0)

    def _stack(self, name: str | None) -> int:
        if name is None:
            return NONE_ID
        return self.builder.stacks.stack([self.builder.stacks.frame(*frame) for frame in self._stacks[name]])


def training_step(script: Script, k: int, *, first: bool = False, backward: str | None = "backward") -> None:
    """One training step with a batch, an activation, a temporary, a loss, a gradient and, at first, a state."""
    script.alloc(f"batch{k}", "batch")
    script.alloc(f"activation{k}", "forward")
    script.alloc(f"scratch{k}", "block")
    script.free(f"scratch{k}", "block")
    script.alloc(f"loss{k}", "loss")
    script.alloc(f"gradient{k}", backward)
    script.alloc(f"inner{k}", backward)
    script.free(f"activation{k}", backward)
    script.free(f"inner{k}", backward)
    if first:
        script.alloc("state", "step")
    script.alloc(f"update{k}", "step")
    script.free(f"update{k}", "step")
    script.free(f"gradient{k}", "zero")
    script.free(f"loss{k}", "user")
    script.free(f"batch{k}", "user")


def trained(n: int = 3, backward: str | None = "backward") -> Script:
    """A constructor, and some steps."""
    script = Script()
    script.alloc("weight", "constructor")
    for k in range(n):
        training_step(script, k, first=k == 0, backward=backward)
    return script


def categories(script: Script) -> dict[str, str]:
    """The category of each named allocation."""
    attribution = attribute(script.lifetimes())
    return {name: Category(int(attribution.category[row])).label for name, row in script.rows.items()}


def owned() -> Analysis:
    """Three owners, and one allocation without."""
    script = Script()
    for name, label, size in (
        ("q", "model.layers.0.self_attn.q_proj.weight", 1000),
        ("m", "exp_avg of model.layers.0.self_attn.q_proj.weight", 600),
        ("o", "model.layers.1.mlp", 300),
        ("i", "copied to the device", 50),
    ):
        event = script.alloc(name, "user", size)
        script.builder.set_owner(event, Category.WEIGHTS, label)
    script.alloc("x", "user", 7)
    event = script.alloc("t", "user", 9)
    script.builder.set_owner(event, Category.UNKNOWN, "my index", tagged=True)
    return Analysis(script.trace())


def with_old_workspace() -> Trace:
    """One allocation, and a block of cuBLAS' size that was there before: nothing recorded says whose that is."""
    builder = TraceBuilder()
    segment = builder.add_segment(address=1 << 40, size_bytes=20 << 20, is_large=True)
    for address, size_bytes, state in (
        (1 << 40, 8_519_680, BlockState.ACTIVE_ALLOCATED),
        ((1 << 40) + 8_519_680, 2 << 20, BlockState.ACTIVE_ALLOCATED),
        ((1 << 40) + 8_519_680 + (2 << 20), (18 << 20) - 8_519_680, BlockState.INACTIVE),
    ):
        builder.add_block(segment, address=address, size_bytes=size_bytes, requested_bytes=size_bytes, state=state)
    builder.add_event(Action.ALLOC, address=(1 << 40) + 8_519_680, size_bytes=2 << 20)
    return builder.build(TraceMetadata(source="torch-snapshot"))
