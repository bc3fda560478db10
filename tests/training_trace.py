"""A small training run with owners, steps, phases, times and an out-of-memory: what the pictures are tested on."""

from __future__ import annotations

from dataclasses import dataclass, field

from memscope.trace.builder import TraceBuilder
from memscope.trace.categories import Category
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import Action, MarkKind
from memscope.trace.trace import Trace
from tests.naive_layout import NaiveBlock, NaiveLayout

MiB = 1 << 20
HOSTILE = "<script>alert(1)</script><b>&amp;"
"""A name that would do something if it were read as markup."""


@dataclass
class _Run:
    layout: NaiveLayout = field(default_factory=NaiveLayout)
    owners: dict[int, tuple[Category, str]] = field(default_factory=dict)
    functions: dict[int, str] = field(default_factory=dict)
    marks: list[tuple[int, MarkKind, str]] = field(default_factory=list)
    oom_at: int | None = None

    def alloc(self, size: int, category: Category, name: str, function: str) -> NaiveBlock:
        block = self.layout.malloc(size)
        event = len(self.layout.events) - 1
        self.functions[event] = function
        if category is not Category.UNKNOWN:
            self.owners[event] = (category, name)
        return block

    def free(self, block: NaiveBlock) -> None:
        self.layout.free_request(block)
        self.layout.free_complete(block)

    def mark(self, kind: MarkKind, label: str) -> None:
        self.marks.append((len(self.layout.events), kind, label))


def _train(run: _Run, n_steps: int, n_layers: int) -> None:
    for i in range(n_layers):
        run.alloc(3 * MiB + 100, Category.WEIGHTS, f"model.layers.{i}.weight", "build")
    for step in range(n_steps):
        run.mark(MarkKind.PHASE_BEGIN, "forward")
        saved = [run.alloc(5 * MiB, Category.ACTIVATIONS, f"layers.{i} output", "forward") for i in range(n_layers)]
        small = [run.alloc(1000 + 300 * i, Category.UNKNOWN, "", HOSTILE) for i in range(3 * n_layers)]
        run.mark(MarkKind.PHASE_END, "forward")
        run.mark(MarkKind.PHASE_BEGIN, "backward")
        gradients = []
        for i, block in enumerate(reversed(saved)):
            gradients.append(run.alloc(3 * MiB + 100, Category.GRADIENTS, f"grad of layer {i} {HOSTILE}", "backward"))
            run.free(block)
        run.mark(MarkKind.PHASE_END, "backward")
        for block in [*small[::2], *gradients]:
            run.free(block)
        run.mark(MarkKind.STEP, str(step))


def training_trace(
    n_steps: int = 3,
    n_layers: int = 4,
    *,
    total_bytes: int | None = 64 * MiB,
    with_times: bool = True,
    with_oom: bool = True,
) -> Trace:
    """A trace of some steps on one device; with an ``oom`` event in the middle if asked for."""
    run = _Run()
    _train(run, n_steps, n_layers)
    builder = TraceBuilder()
    stacks = {
        function: builder.stacks.stack(
            [builder.stacks.frame(function, "/home/me/project/train.py", 7), builder.stacks.frame("main", "run.py", 3)]
        )
        for function in ["other", *run.functions.values()]
    }
    marks = list(run.marks)
    shift = 0
    half = len(run.layout.events) // 2
    for position, (action, address, size) in enumerate(run.layout.events):
        while marks and marks[0][0] == position:
            _, kind, label = marks.pop(0)
            builder.add_mark(kind, label)
        time_ns = 1_000_000_000 + 1_000_000 * position if with_times else -1
        if with_oom and position == half:
            builder.add_event(Action.OOM, address=-1, size_bytes=512 * MiB, time_ns=time_ns)
            shift = 1
        stack_id = stacks[run.functions.get(position, "other")]
        builder.add_event(action, address=address, size_bytes=size, time_ns=time_ns, stack_id=stack_id)
        if position in run.owners:
            builder.set_owner(position + shift, *run.owners[position])
    for _, kind, label in marks:
        builder.add_mark(kind, label)
    for segment in sorted(run.layout.segments, key=lambda s: s.address):
        segment_id = builder.add_segment(address=segment.address, size_bytes=segment.size, is_large=segment.is_large)
        for block in segment.blocks:
            builder.add_block(
                segment_id,
                address=block.address,
                size_bytes=block.size,
                requested_bytes=block.requested,
                state=block.state,
            )
    totals = {} if total_bytes is None else {0: total_bytes}
    metadata = TraceMetadata(
        source="synthetic", alloc_conf="", device_total_bytes=totals, device_names={0: f"Test GPU {HOSTILE}"}
    )
    return builder.build(metadata)
